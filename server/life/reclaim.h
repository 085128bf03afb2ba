/* SPDX-License-Identifier: MIT */
/*
 * reclaim.h - go on serving while the machine is short of memory.
 *
 * When the kernel needs memory it may write to this very device: to what is swapped there,
 * or to files on it.  A server that waits for memory then waits for itself.  So what serves,
 * and the keeper without which nothing would be served again, must neither start such
 * writes while it allocates, nor be swapped out itself.
 */
#ifndef UBLKZC_SERVER_RECLAIM_H
#define UBLKZC_SERVER_RECLAIM_H

/*
 * For the calling thread and all that it starts from here on, workers of its io_urings too:
 * its allocations start no I/O, and it is not held up for other devices' dirty pages.  For
 * the process: what it has mapped is locked in memory, and what it maps later is locked
 * page by page as it is first touched, so that nothing is allocated for it.
 *
 * Needs CAP_SYS_RESOURCE, so it comes before capabilities are dropped.  After fork(2) and
 * execve(2) again: locks are not inherited.  Logs what is not possible for @who, as in "the
 * server": all works without, until memory is short.
 */
void reclaim_prepare(const char *who);

#endif
