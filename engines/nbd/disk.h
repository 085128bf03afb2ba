/* SPDX-License-Identifier: MIT */
/*
 * disk.h - an NBD export as a device: what the threads of the engine share.
 *
 *   control thread  engine.c: opens, asks for the size, closes
 *   queue threads   queue.c, link.c: requests, each on connections that only it uses
 *   the connector   connector.c, one thread for a device: makes connections anew
 *
 * A connection is a slot's for as long as the device lives.  Its handle is not thread-safe and
 * belongs to whoever slot.state says, so that handing it over is one store of an atomic.
 */
#ifndef UBLKZC_NBD_DISK_H
#define UBLKZC_NBD_DISK_H

#include <pthread.h>
#include <stdatomic.h>
#include <ublkzc/engine.h>

#include "cache.h"
#include "connection.h"
#include "options.h"
#include "parked.h"

enum slot_state {
	SLOT_IN_USE, /* a queue has the handle */
	SLOT_WANTED, /* there is none; the connector is to make one */
	SLOT_READY,  /* there is one that the queue has not taken yet */
};

struct slot {
	_Atomic(enum slot_state) state;
	struct nbd_handle *handle;
	uint64_t size; /* what the export had when the handle was made */
	int wake_fd;   /* eventfd, the same for all of a queue: something is READY */
	/* The connector's, and the control thread's while there is no connector. */
	int watch;	    /* the connection's socket once more: -1, there was none */
	bool half_closed;   /* nothing is sent on it any more, its end is awaited */
	bool complained;    /* it was said that there is no connection */
	uint64_t written;   /* cache_covers() when the last one was lost; the queue sets it */
	atomic_bool polite; /* the queue has taken leave of the server: nothing was lost */
};

struct disk {
	struct ublkzc_target *target;
	struct options options;
	struct export export;  /* as open() found it; a new connection must offer as much */
	_Atomic uint64_t size; /* of the export, now */
	struct cache cache;
	struct parked parked;
	struct slot *slots; /* nr_connections of queue 0, then of queue 1 ... */
	unsigned int nr_slots;
	pthread_t connector;
	bool has_connector;
	bool fenced; /* what a dead server had under way is over */
	int work_fd; /* eventfd: something is WANTED */
	int stop_fd; /* eventfd: end */
};

#endif
