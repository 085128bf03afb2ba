/* SPDX-License-Identifier: MIT */
/*
 * privileges.h - give up what serving needs no more.
 *
 * From before its first command to the driver, the server has the capabilities with
 * which it commands the driver and finds shared memory, and no other; its queue threads
 * have none.  Once the device is live nobody needs to start programs, to trace, to mount,
 * to load modules, or to become somebody else.  The keeper does need to start programs,
 * and keeps what it has.
 */
#ifndef UBLKZC_SERVER_PRIVILEGES_H
#define UBLKZC_SERVER_PRIVILEGES_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The calling thread keeps what controlling needs.  Call it before the thread's first
 * io_uring: the kernel's workers of a ring have what its thread had when they started.
 * Logs what is not possible and goes on, like the others: the server works without.
 */
void privileges_keep_control(void);

/* May rings pin as much memory as they like?  Else *@ret_limit bytes, of all the user's. */
bool privileges_may_pin(uint64_t *ret_limit);

/* The calling thread keeps no capability. */
void privileges_keep_none(void);

/* From here on no thread makes the system calls of the list in privileges.c. */
void privileges_filter_calls(void);

#endif
