/* SPDX-License-Identifier: MIT */
/*
 * session.h - the sessions with the servers of the disks we do direct I/O to.
 *
 * A session is made when a descriptor with O_DIRECT turns out to live on a
 * ublk disk ("arming").  Arming waits for the server, at most
 * UBLKZC_CONNECT_MS milliseconds a step (HELLO, then the answers to all ADDs).
 * For later arenas, which come about in malloc, it waits a tenth of that
 * at most; for servers of the older protocol, which has no answer that could be
 * read later, as long as for others when arming.  No outcome changes
 * the result of the program's call.
 */
#ifndef UBLKZC_PRELOAD_SESSION_H
#define UBLKZC_PRELOAD_SESSION_H

#include <stdbool.h>

#include "arena.h"

#define SESSIONS_MAX 16U      /* ublk disks one process can be armed for */
#define SESSION_RETRY_MS 1000 /* between attempts for one disk */
/* The part of UBLKZC_CONNECT_MS that malloc waits, at most, for the answer to an
 * arena that it made. */
#define SESSION_ALLOC_WAIT_PART 10

/* Is there at least one session?  Any thread. */
bool session_armed(void);

/* Make a session with /dev/ublkb@device's server, @proof being open on it.
 * Preserves errno. */
void session_arm(unsigned int device, int proof);

/*
 * A new arena (blocks.c's lock held), sent to all servers there is a session
 * with, waiting for none.  NULL: none can be had here and now.
 */
struct arena *session_new_arena(size_t bytes);

/*
 * Hand over what has come about without being sent, arenas and what the
 * program itself shares (shared.h), and wait for the answers as an open does.
 * blocks.c's lock is not held.  Preserves errno.
 */
void session_offer_memory(void);

/* In a forked child: the sessions are the parent's. */
void session_forget(void);

#endif
