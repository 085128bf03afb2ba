/* SPDX-License-Identifier: MIT */
/*
 * session.h - the sessions with the servers of the disks we do direct I/O to.
 *
 * A session is made when a descriptor with O_DIRECT turns out to live on a
 * ublk disk ("arming").  Arming waits for the server, at most
 * UBLKZC_CONNECT_MS milliseconds a step (HELLO, then the answers to all ADDs).
 * Later arenas come about in malloc, which sends them and waits for nothing; servers of
 * the older protocol, which has no answer that could be read later, get them at the
 * next open.  No outcome changes the result of the program's call.
 */
#ifndef UBLKZC_PRELOAD_SESSION_H
#define UBLKZC_PRELOAD_SESSION_H

#include <stdbool.h>

#include "arena.h"

#define SESSIONS_MAX 16U      /* ublk disks one process can be armed for */
#define SESSION_RETRY_MS 1000 /* between attempts for one disk */

/* Is there at least one session?  Any thread. */
bool session_armed(void);

/* Make a session with /dev/ublkb@device's server, @proof being open on it.
 * Preserves errno. */
void session_arm(unsigned int device, int proof);

/*
 * Hand over what has come about without being sent, arenas and what the
 * program itself shares (shared.h), and wait for the answers as an open does.
 * The lock of lock.h is not held.  Preserves errno.
 */
void session_offer_memory(void);

/* In a forked child: the sessions are the parent's. */
void session_forget(void);

#endif
