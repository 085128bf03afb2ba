/* SPDX-License-Identifier: MIT */
/*
 * connector.h - makes connections: the first ones, and those that have been lost, anew.
 *
 * To look up a name and to shake hands waits, which queue threads may not; so one thread
 * does it for all of a device.
 */
#ifndef UBLKZC_NBD_CONNECTOR_H
#define UBLKZC_NBD_CONNECTOR_H

#include "disk.h"

/* All slots are READY, and the thread runs; or a negative errno, logged.  Control thread. */
int connector_start(struct disk *d);

/* The thread has ended.  Control thread. */
void connector_stop(struct disk *d);

/* @s has no handle any more (SLOT_WANTED).  Queue thread. */
void connector_want(struct disk *d, struct slot *s);

/* Does a connection that offers @now serve as @d was opened?  False, and why. */
bool connector_same(const struct disk *d, const struct export *now, char *why, size_t size);

#endif
