/* SPDX-License-Identifier: MIT */
/*
 * pins.h - may the kernel, or a device, hold pages of this process?
 *
 * Then they must stay where they are.  Direct I/O holds them for the time of a system
 * call, which another thread may be in; io_uring, aio, RDMA and drivers hold them for as
 * long as they like.
 */
#ifndef UBLKZC_PRELOAD_PINS_H
#define UBLKZC_PRELOAD_PINS_H

/* NULL: nobody can.  Else who, for people; also when it cannot be told. */
const char *pins_by_whom(void);

#endif
