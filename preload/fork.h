/* SPDX-License-Identifier: MIT */
/*
 * fork.h - private memory stays private over fork.
 *
 * What the program got from us it believes private, but it is MAP_SHARED.
 * Either way below, parent and child see what they would have seen:
 *
 * copy     the child copies what exists to private memory at the same
 *          addresses while the parent's forking thread waits.  The parent's pages stay
 *          where they are: what the kernel or a device has pinned stays the program's.
 *          Other threads of the parent that write during the copy may be seen to
 *          have written one thing and not an earlier other.  Only the stack that the
 *          thread runs on cannot be shared for even a moment (fork_stack.c).
 * private  before the fork the parent maps its arenas MAP_PRIVATE at the same
 *          place and makes new ones later; from then on both sides are
 *          copy-on-write, as the kernel does it for any memory.  But a page that is
 *          pinned would move when it is written to: so only if nobody can have pinned
 *          one (pins.h), else copy.
 *
 * auto: copy up to UBLKZC_FORK_COPY_MAX_MB; above that private.
 *
 * Mapping MAP_PRIVATE in the child after the fork would be wrong: it would see
 * what the parent writes later.
 *
 * Other people's handlers run between ours, and threads run meanwhile.  So no lock is
 * held that anybody waits for: what the lock protects is frozen (lock.h), which means
 * that nothing is captured until the fork is over, and freed blocks wait.
 */
#ifndef UBLKZC_PRELOAD_FORK_H
#define UBLKZC_PRELOAD_FORK_H

/* How long a parent waits for its child's copy. */
#define FORK_COPY_DEADLINE_MS 30000

/* Handlers of pthread_atfork(3); they do nothing while there is no arena. */
void fork_prepare(void);
void fork_parent(void);
void fork_child(void);

/*
 * The program is about to forbid itself system calls that a fork would take to repair:
 * what the handlers would do is done now, for good.  Not if anybody may have pinned
 * pages of it.
 */
void fork_never_again(void);

#endif
