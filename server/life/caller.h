/* SPDX-License-Identifier: MIT */
/*
 * caller.h - what a process has from who started it, and what may not be a server's fate.
 */
#ifndef UBLKZC_SERVER_CALLER_H
#define UBLKZC_SERVER_CALLER_H

/*
 * First of all: standard streams that are closed are opened, so that nothing opened later is taken
 * for one. A log line would go to a disk, and what is put in place of a terminal would replace
 * the keeper's program. Reading and writing them fails as it did.
 */
void caller_fill_streams(void);

/* Ends of children are told, also when the caller had it otherwise. Not for who executes others. */
void caller_forget_signals(void);

/*
 * No limit of a shell's on the size of files, on processor time or on address space: a server
 * would be killed by one, and so would each successor.
 */
void caller_lift_limits(void);

#endif
