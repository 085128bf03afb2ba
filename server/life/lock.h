/* SPDX-License-Identifier: MIT */
/*
 * lock.h - one server for a device.
 *
 * /run/ublkzc/ublkbN.lock, which only root can open: who holds a lock on it, the server
 * and with it its keeper, has the device.  It is a lock of the open file (F_OFD_SETLK), so
 * it lasts until the last process with the descriptor has ended, and asking who holds it
 * takes nothing from anybody.
 */
#ifndef UBLKZC_SERVER_LOCK_H
#define UBLKZC_SERVER_LOCK_H

#include <stddef.h>

void lock_path(char *buf, size_t size, unsigned int device);

/* -EEXIST: another has it.  *@ret_fd holds it. */
int lock_take(unsigned int device, int *ret_fd);

/*
 * To ask who holds it, also when its holder removes the file, or /run is read-only.  -ENOENT: no such
 * server; -EACCES: not root.
 */
int lock_open(unsigned int device);

/* Does anybody hold what lock_open() returned?  1, 0 or a negative errno. */
int lock_held(int fd);

/* Until nobody holds it: 0, -ETIMEDOUT or as lock_held(). */
int lock_wait(int fd, int ms);

#endif
