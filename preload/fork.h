/* SPDX-License-Identifier: MIT */
/*
 * fork.h - private memory stays private over fork.
 *
 * What the program got from us it believes private, but it is MAP_SHARED.
 * Either way below, parent and child see what they would have seen:
 *
 * copy     the child copies the live blocks to private memory at the same
 *          addresses while the parent's forking thread waits.  The parent
 *          keeps its arenas, registrations and requests in flight.  Other
 *          threads of the parent that write during the copy may be seen to
 *          have written one thing and not an earlier other.
 * private  before the fork the parent maps its arenas MAP_PRIVATE at the same
 *          place and makes new ones later; from then on both sides are
 *          copy-on-write.  Exact for every thread; but what a device is just
 *          reading into a page that the program then writes to before the
 *          read has ended, is lost to the program.
 *
 * auto: copy when there is a session with a server (reads may be in flight)
 * and the live blocks are few (UBLKZC_FORK_COPY_MAX_MB), private otherwise.
 *
 * Mapping MAP_PRIVATE in the child after the fork would be wrong: it would see
 * what the parent writes later.
 */
#ifndef UBLKZC_PRELOAD_FORK_H
#define UBLKZC_PRELOAD_FORK_H

/* How long a parent waits for its child's copy. */
#define FORK_COPY_DEADLINE_MS 30000

/* Handlers of pthread_atfork(3); they do nothing while there is no arena. */
void fork_prepare(void);
void fork_parent(void);
void fork_child(void);

#endif
