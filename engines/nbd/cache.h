/* SPDX-License-Identifier: MIT */
/*
 * cache.h - what a server has acknowledged and not made stable.
 *
 * A server that dies may take such writes with it (a power cut does), and the one that comes
 * after it would flush what it has and call that success: the writes would be lost without
 * anybody being told.  So a flush fails that comes after the death of a server that had some.
 * It fails once, as a disk's flush does; who gets the error must not trust what it wrote since
 * its last flush that was none.
 *
 * Any thread.
 */
#ifndef UBLKZC_NBD_CACHE_H
#define UBLKZC_NBD_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct cache {
	bool tracked; /* else nothing can be lost; set before threads begin */
	_Atomic uint64_t
		written; /* writes that were acknowledged and are not stable by themselves */
	_Atomic uint64_t flushed; /* how many of these a flush has covered */
	atomic_bool doubt;	  /* some are gone, and no flush has said so yet */
};

/* A write is acknowledged.  Before the client learns of it. */
void cache_wrote(struct cache *c);

/* A flush is about to be asked for; what it will cover. */
uint64_t cache_covers(struct cache *c);

/* It was done.  False: it must fail. */
bool cache_flushed(struct cache *c, uint64_t covers);

/*
 * A server has ended, or that it has not is unknown; writes were acknowledged up to @written
 * (cache_covers()) when its connection was found lost.  True: there was something to lose.
 */
bool cache_server_gone(struct cache *c, uint64_t written);

#endif
