/* SPDX-License-Identifier: MIT */
/* inheritance.h - what a server of ublkzc's that died has left under way.  Control thread. */
#ifndef UBLKZC_NBD_INHERITANCE_H
#define UBLKZC_NBD_INHERITANCE_H

#include "disk.h"

/*
 * Opens d->parked with target->fd, waits until what was asked on sockets that are parked there is
 * over, and sets d->fenced then.  0 or a negative errno, logged.
 */
int inheritance_end(struct disk *d);

/* There are no sockets of the dead server: nobody can tell, so wait for what is usual. */
int inheritance_wait(struct disk *d);

#endif
