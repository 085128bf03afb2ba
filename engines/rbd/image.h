/* SPDX-License-Identifier: MIT */
/* image.h - an open image: what it is, whose it is, and when it changes. */
#ifndef UBLKZC_RBD_IMAGE_H
#define UBLKZC_RBD_IMAGE_H

#include "disk.h"

/*
 * d->pool and d->image, as target->read_only says.  Changes by others are heard of.  0; or a
 * negative errno, and why in words.  Control thread.
 */
int image_open(struct disk *d, char *why, size_t size);

/*
 * Nobody else can write it until image_close().  Who had the lock and does not live is
 * cut off.  0; or a negative errno, and why in words.  Control thread, may take half a minute.
 */
int image_lock(struct disk *d, char *why, size_t size);

/* What it says of the device.  0, or a negative errno, and why in words.  Control thread. */
int image_describe(struct disk *d, char *why, size_t size);

/* However far it got.  Control thread. */
void image_close(struct disk *d);

#endif
