/* SPDX-License-Identifier: MIT */
/*
 * blocks.h - the allocator inside the arenas.
 *
 * Blocks are runs of whole granules (4 KiB) and start on one; small ones are slots of
 * a granule that is cut up for their size.  Nothing here waits: what cannot have the
 * lock (lock.h) at once is left to libc, or, a freed block, to the next holder.
 * Small blocks that are freed are kept for a moment, where no lock is needed
 * (block_cache.h).  Blocks in RETIRED arenas can be freed, not made.
 *
 * Memory is populated by whoever touches it, and stays when it is freed: it is
 * handed out again first.
 */
#ifndef UBLKZC_PRELOAD_BLOCKS_H
#define UBLKZC_PRELOAD_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>

#include "arena.h"

/*
 * What the allocator tells those above it; session.c has them.  arenas_changed: there
 * is a new arena, one is gone, or one should be seen anew; fresh_block: @p was never
 * used before, or not since its memory went back.  The lock is not held.
 *
 * Whether a server holds memory or not, it can be given back: what it has registered is
 * pinned, and can never be taken for another page.
 */
struct blocks_events {
	bool (*armed)(void); /* do servers hold memory? */
	void (*arenas_changed)(void);
	void (*fresh_block)(void *p, size_t len);
};

extern const struct blocks_events blocks_events;

/*
 * @align: a power of two.  The block is at least @size bytes; NULL: let libc
 * do it (the reason is counted).  @zero: all of it reads as zero.
 */
void *block_alloc(size_t size, size_t align, bool zero);

/*
 * The quick ways, for which no lock is taken and errno stays: a block freed a
 * moment ago (its content is what it was; @align as above), and leaving one
 * for that.  NULL or false: block_alloc() and block_free() have to do it.
 */
void *block_alloc_cached(size_t size, size_t align);
bool block_free_cached(void *p);

/* @p as block_alloc returned it.  Anything else is an error in the program, which ends
 * it with a message, as glibc's free does. */
void block_free(void *p);

/* Bytes usable at @p; 0 when it is no block. */
size_t block_size(const void *p);

/*
 * For what grew once and will grow again: half as much more than @size at least, and where more is
 * free behind it, so that growing step by step copies seldom.  Nobody touches the rest until
 * it is used.
 */
void *block_alloc_growing(size_t size);

/* Make @p hold @size bytes where it is.  False: it has to move. */
bool block_resize(void *p, size_t size);

/* A part of blocks was protected, or told not to be inherited: made good when they are
 * freed.  No lock. */
void blocks_altered(const void *addr, size_t len);

/* lock_take(), and what others left to do meanwhile; as much again at the end. */
bool blocks_lock(void);
bool blocks_lock_patiently(void); /* lock_take_patiently() */
bool blocks_lock_within(int ms);
void blocks_unlock(void);

/* What was left to do.  Lock held. */
void blocks_catch_up(void);

/* arenas_changed is due, once the lock is dropped. */
void blocks_news(void);

/* An arena is there, with room for the first small blocks.  Lock held. */
void blocks_ensure_arena(void);

/* Call @each for every run of used granules of @a.  Also in the middle of a change. */
void blocks_for_each_used(const struct arena *a, void (*each)(char *at, size_t len, void *arg),
			  void *arg);

/* The same for free ones that were used once. */
void blocks_for_each_free(const struct arena *a, void (*each)(char *at, size_t len, void *arg),
			  void *arg);

/* Bytes that were used and are free, about.  No lock. */
size_t blocks_free_bytes(void);

/* Free what was kept for reuse.  Lock held. */
void blocks_drain_cache(void);

/* No new blocks in @a from here on.  Lock held. */
void blocks_retire(struct arena *a);

/* The bookkeeping of an arena that is made, or gone. */
bool blocks_make_granules(struct arena *a);
void blocks_free_granules(struct arena *a);

/* Structural check of everything, for tests.  Lock held. */
bool blocks_valid(void);

#endif
