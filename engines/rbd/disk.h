/* SPDX-License-Identifier: MIT */
/*
 * disk.h - an RBD image as a device: what the threads of the engine share.
 *
 *   control thread   engine.c, cluster.c, image.c: opens, asks for the size, closes
 *   queue threads    queue.c: begin requests
 *   librbd's threads queue.c: end them; image.c: somebody has changed the image
 */
#ifndef UBLKZC_RBD_DISK_H
#define UBLKZC_RBD_DISK_H

#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stdatomic.h>
#include <ublkzc/engine.h>

#include "options.h"

#define MESSAGE 1024

struct disk {
	struct ublkzc_target *target;
	struct options options;
	rados_t cluster;    /* NULL: none */
	rados_ioctx_t pool; /* NULL: none */
	rbd_image_t image;  /* NULL: it is not open */
	uint64_t watch;	    /* of what others do to the image */
	bool watching;
	bool read_only;	       /* it was opened so */
	bool fenced;	       /* nothing of a dead server can come any more */
	_Atomic uint64_t size; /* of the image, now */
	atomic_bool doubt;     /* a dead server's cache is lost, and no flush has said so yet */
	atomic_bool cut_off;   /* it was said that the cluster has cut us off */
};

#endif
