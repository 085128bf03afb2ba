/* SPDX-License-Identifier: MIT */
/* blocks_internal.h - between the files of blocks.h.  With the lock, unless it says so. */
#ifndef UBLKZC_PRELOAD_BLOCKS_INTERNAL_H
#define UBLKZC_PRELOAD_BLOCKS_INTERNAL_H

#include "blocks.h"
#include "runs.h"

/* Which granule of @a @p is in.  No lock. */
static inline uint32_t granule_of(const struct arena *a, const void *p)
{
	return (uint32_t)((size_t)((const char *)p - a->base) / ARENA_GRANULE);
}

/* Blocks that have grown have arenas of their own. */
static inline bool blocks_may_be_in(const struct arena *a, bool grown)
{
	return a->state == ARENA_SHARED && a->granules && a->growing == grown;
}

/* A block of @len granules that this thread freed a moment ago, or NULL.  No lock. */
void *blocks_take_cached(uint32_t len);

/* Of a run: was its mapping changed?  No lock. */
bool blocks_are_altered(const struct arena *a, uint32_t at, uint32_t len);

/* The run is to be used anew: readable, writable, inherited by children.  False: that
 * cannot be. */
bool blocks_restore(struct arena *a, uint32_t at, uint32_t len);

/* @len granules of @a are free: perhaps it goes back, or what piled up. */
void blocks_after_free(struct arena *a, uint32_t len);
void blocks_handed_out_again(struct arena *a, uint32_t len);

#endif
