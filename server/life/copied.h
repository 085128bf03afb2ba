/* SPDX-License-Identifier: MIT */
/*
 * copied.h - where on the disk data was copied, in shared memory.
 *
 * Counters say how much was copied, and nobody can tell from them of which file. So a place is
 * noted for every so many bytes that are copied: a sample in which each byte has the same chance.
 * All queues write, anybody reads; the oldest are overwritten, and a reader may find one that
 * is just being written.
 */
#ifndef UBLKZC_SERVER_COPIED_H
#define UBLKZC_SERVER_COPIED_H

#include <stdatomic.h>
#include <stdint.h>

#define COPIED_STEP 65536U  /* bytes that a place stands for */
#define COPIED_PLACES 4096U /* a power of two */

struct copied {
	_Atomic uint64_t nr;			/* places noted so far */
	_Atomic uint64_t places[COPIED_PLACES]; /* byte on the device; the Nth in N mod all */
};

/* @len bytes at @offset were copied. @left: how many more until the next place; of the queue. */
static inline void copied_add(struct copied *c, uint32_t *left, uint64_t offset, uint32_t len)
{
	uint32_t at = *left;

	for (; at < len; at += COPIED_STEP) {
		uint64_t nr = atomic_fetch_add_explicit(&c->nr, 1, memory_order_relaxed);

		atomic_store_explicit(&c->places[nr % COPIED_PLACES], offset + at,
				      memory_order_relaxed);
	}
	*left = at - len;
}

#endif
