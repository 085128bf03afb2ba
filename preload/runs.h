/* SPDX-License-Identifier: MIT */
/*
 * runs.h - runs of granules in an arena, free and used.
 *
 *   granules:  | used run   | free run        | used | never used ... |
 *   metadata:    U . . T      F . . . . . . F   U                     ^ high
 *
 * The first and the last granule of a run carry its length and state (Knuth's
 * boundary tags, but in private memory), so that a freed run finds its free
 * neighbours at once.  Free runs hang in bins, one per power of two; granules
 * from "high" on were never handed out and are zero, which calloc uses.
 *
 * Called with the lock held, but for what says otherwise.
 */
#ifndef UBLKZC_PRELOAD_RUNS_H
#define UBLKZC_PRELOAD_RUNS_H

#include "arena.h"

/*
 * TAIL: the last granule of a run that is not free.  CACHED: free for the program, but
 * kept for its thread.  FREED: by somebody who did not get the lock; it waits for the
 * next holder.  SLOTS: cut up for small blocks (slots.h).
 */
enum granule_state { UNUSED, FREE, USED, TAIL, CACHED, FREED, SLOTS };

/* Per granule; len is valid in the first and the last granule of a run. */
struct granule {
	uint32_t len;  /* of the run, in granules */
	uint32_t next; /* free runs: in their bin, granule index + 1, 0: none; slots: in
			* their list, granules' names */
	uint32_t prev;
	_Atomic uint8_t state;	  /* enum granule_state */
	uint8_t slot_shift;	  /* SLOTS: a slot's size is 2^this */
	_Atomic uint8_t taken;	  /* SLOTS: a bit for each that is a block */
	_Atomic uint8_t dropped;  /* SLOTS: of them, freed and waiting for the lock */
	_Atomic uint32_t waiting; /* freed and waiting: the next such granule, as a name */
	bool listed;		  /* SLOTS: in the list of those with room */
};

/* A granule of any arena as one number, not 0. */
static inline uint32_t granule_name(const struct arena *a, uint32_t at)
{
	return ((uint32_t)(a - arenas) << 20 | at) + 1;
}

static inline struct arena *granule_arena(uint32_t name)
{
	return &arenas[(name - 1) >> 20];
}

static inline uint32_t granule_index(uint32_t name)
{
	return (name - 1) & ((1U << 20) - 1);
}

/*
 * The first granule's state of a block is also read and written without the lock,
 * by the one thread that owns the block at that moment; those who look at it
 * with the lock only ask whether it is FREE, which it then is not.
 */
static inline uint8_t run_state(const struct arena *a, uint32_t at)
{
	return atomic_load_explicit(&a->granules[at].state, memory_order_relaxed);
}

static inline void run_set_state(struct arena *a, uint32_t at, enum granule_state state)
{
	atomic_store_explicit(&a->granules[at].state, (uint8_t)state, memory_order_relaxed);
}

/* Of several threads that want to, one changes it.  No lock. */
static inline bool run_change_state(struct arena *a, uint32_t at, enum granule_state from,
				    enum granule_state to)
{
	uint8_t expected = (uint8_t)from;

	return atomic_compare_exchange_strong_explicit(&a->granules[at].state, &expected,
						       (uint8_t)to, memory_order_acq_rel,
						       memory_order_relaxed);
}

/* @len granules, the first on a multiple of @align bytes.  @ret_clean: they were never
 * used, so they are zero. */
bool run_take(struct arena *a, uint32_t len, size_t align, uint32_t *ret, bool *ret_clean);

/* The same for what is likely to grow: where at least as many as @room are free, if there
 * is such a place. */
bool run_take_roomy(struct arena *a, uint32_t len, uint32_t room, uint32_t *ret);

/* The used run at @at is free. */
void run_give_back(struct arena *a, uint32_t at);

/* Nothing that is used is behind the used run at @at. */
bool run_is_last(const struct arena *a, uint32_t at);

/* Make it longer or shorter where it is.  False: it cannot be. */
bool run_resize(struct arena *a, uint32_t at, uint32_t len);

/* Forget all; the arena is gone. */
void runs_forget(const struct arena *a);

/* Structural check, for tests. */
bool runs_valid(const struct arena *a);

#endif
