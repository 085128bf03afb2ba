/* SPDX-License-Identifier: MIT */
/*
 * blocks.h - the allocator inside the arenas.
 *
 * Blocks are runs of whole granules (4 KiB) and start on one.  One lock; it is
 * held for a few dozen instructions, except while an arena is made, and is
 * taken by fork.c around a fork.  Small blocks that are freed are kept for a
 * moment, where no lock is needed (block_cache.h).  Blocks in RETIRED arenas can be freed, not
 * made.
 */
#ifndef UBLKZC_PRELOAD_BLOCKS_H
#define UBLKZC_PRELOAD_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>

#include "arena.h"

/*
 * What the allocator asks of those above it, its lock held; session.c has
 * them.  need_arena: a new arena with room for @bytes, or NULL when none can
 * be had.  arena_gone: @a is about to be released.
 */
struct blocks_events {
	struct arena *(*need_arena)(size_t bytes);
	void (*arena_gone)(const struct arena *a);
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

/* @p as block_alloc returned it.  Anything else in the reservation is
 * counted and ignored. */
void block_free(void *p);

/* Bytes usable at @p; 0 when it is no block. */
size_t block_size(const void *p);

/* Make @p hold @size bytes where it is.  False: it has to move. */
bool block_resize(void *p, size_t size);

void blocks_lock(void);
void blocks_unlock(void);
bool blocks_locked_here(void); /* by this thread, which a signal handler interrupts */
void blocks_lock_reset(void);  /* in a child: its only thread holds nothing */

/* Call @each for every run of used granules of @a. */
void blocks_for_each_used(struct arena *a, void (*each)(char *at, size_t len, void *arg),
			  void *arg);

/* Free what was kept for reuse.  Lock held. */
void blocks_drain_cache(void);

/* No new blocks in @a from here on.  Lock held. */
void blocks_retire(struct arena *a);

/* Structural check of everything, for tests.  Lock held. */
bool blocks_valid(void);

#endif
