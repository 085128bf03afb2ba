/* SPDX-License-Identifier: MIT */
/*
 * privileges.h - give up what serving needs no more.
 *
 * Once the device is live, the queue threads need no capability at all, and the
 * control thread those with which it commands the driver and finds shared memory.
 * Nobody needs to start programs, to trace, to mount, to load modules, or to become
 * somebody else.  The keeper does need to start programs, and keeps what it has.
 */
#ifndef UBLKZC_SERVER_PRIVILEGES_H
#define UBLKZC_SERVER_PRIVILEGES_H

/* The calling thread's capabilities, all of them.  Logs what is not possible. */
void privileges_drop_thread(void);

/*
 * The calling thread keeps what controlling needs; and from here on no thread of the
 * process may make the system calls of the list in privileges.c.  Logs what is not
 * possible and goes on: the server works without.
 */
void privileges_drop_process(void);

#endif
