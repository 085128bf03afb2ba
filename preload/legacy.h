/* SPDX-License-Identifier: MIT */
/*
 * legacy.h - the older protocol: one connection a buffer.
 *
 * One byte and the memfd there, an int32_t back: the index, or a negative errno.
 * Servers of that kind write their answer without asking who is still there,
 * and die of SIGPIPE if nobody is, with their disk.  So an exchange is completed,
 * or not begun: never is such a connection's end closed while the answer is to
 * come.
 */
#ifndef UBLKZC_PRELOAD_LEGACY_H
#define UBLKZC_PRELOAD_LEGACY_H

#include <stdbool.h>
#include <stdint.h>

/* Is there a socket for /dev/ublkb@device?  Nobody is connected to. */
bool legacy_there(unsigned int device);

/*
 * Offer @memfd and wait for the answer until @deadline (ms, sys_now_ms()).  0 and
 * the answer in @ret_index; -ETIMEDOUT: the answer is still to come, and what it
 * will be nobody will know; another negative errno: not accepted.
 */
int legacy_offer(unsigned int device, int memfd, long long deadline, int32_t *ret_index);

/* The process ends: what is waited for by another thread stays answerable. */
void legacy_leave(void);

#endif
