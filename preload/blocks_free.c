/* SPDX-License-Identifier: MIT */
/*
 * blocks_free.c - freeing, with the lock or without.
 *
 * A block that is freed while somebody else has the lock joins a list to which threads
 * only ever add, and which the next holder takes as a whole.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "block_cache.h"
#include "blocks_internal.h"
#include "common/log.h"
#include "lock.h"
#include "regions.h"
#include "slots.h"
#include "sys.h"

static _Atomic uint32_t waiting; /* the first freed granule that waits, by its name */
static atomic_bool news;	 /* arenas_changed is due */

/* ---- the lock, and what it was too late for ---- */

static void free_run(struct arena *a, uint32_t at);

static void free_slots(struct arena *a, uint32_t at, uint8_t bits)
{
	if (bits && slot_give_back(a, at, bits))
		free_run(a, at);
}

static void leave_for_later(struct arena *a, uint32_t at)
{
	uint32_t name = granule_name(a, at);
	uint32_t first = atomic_load_explicit(&waiting, memory_order_relaxed);

	do {
		a->granules[at].waiting = first;
	} while (!atomic_compare_exchange_weak_explicit(
		&waiting, &first, name, memory_order_release, memory_order_relaxed));
}

static void free_waiting(void)
{
	uint32_t name = atomic_load_explicit(&waiting, memory_order_relaxed);

	if (name)
		name = atomic_exchange_explicit(&waiting, 0, memory_order_acquire);
	while (name) {
		struct arena *a = granule_arena(name);
		uint32_t at = granule_index(name);
		uint32_t next = a->granules[at].waiting;

		if (run_change_state(a, at, FREED, USED))
			free_run(a, at);
		else if (run_state(a, at) == SLOTS)
			free_slots(a, at, atomic_exchange(&a->granules[at].dropped, 0));
		name = next;
	}
}

void blocks_news(void)
{
	news = true;
}

void blocks_catch_up(void)
{
	free_waiting();
	regions_tidy();
}

bool blocks_lock(void)
{
	if (!lock_take())
		return false;
	blocks_catch_up();
	return true;
}

bool blocks_lock_patiently(void)
{
	if (!lock_take_patiently())
		return false;
	blocks_catch_up();
	return true;
}

bool blocks_lock_within(int ms)
{
	if (!lock_take_within(ms))
		return false;
	blocks_catch_up();
	return true;
}

/* What came while we held it would wait for ever, if nobody came after us. */
void blocks_unlock(void)
{
	do {
		blocks_catch_up();
		lock_drop();
	} while (atomic_load_explicit(&waiting, memory_order_relaxed) && lock_take());
	if (atomic_exchange_explicit(&news, false, memory_order_relaxed))
		blocks_events.arenas_changed();
}

/* ---- freeing ---- */

static void free_run(struct arena *a, uint32_t at)
{
	uint32_t len = a->granules[at].len;

	/* A block with holes in it, or that stays protected, can serve nobody any more. */
	if (a->torn || !blocks_restore(a, at, len))
		return;
	/* Private to us since a fork: no server holds it, so it can go back. */
	if (a->state == ARENA_RETIRED)
		sys_madvise(a->base + (size_t)at * ARENA_GRANULE, (size_t)len * ARENA_GRANULE,
			    MADV_DONTNEED);
	run_give_back(a, at);
	blocks_after_free(a, len);
}

static _Noreturn void wrong_free(const char *what, const void *p)
{
	log_line(LOG_ERROR, "free(): %s: %p", what, p);
	abort();
}

static void free_slot(struct arena *a, uint32_t at, const void *p)
{
	struct granule *g = &a->granules[at];
	uint8_t bit = slot_bit(a, at, (size_t)((const char *)p - a->base) % ARENA_GRANULE);
	uint8_t before;

	if (!bit)
		wrong_free("invalid pointer", p);
	before = atomic_fetch_or(&g->dropped, bit);
	if (!(g->taken & bit) || before & bit)
		wrong_free("double free detected", p);
	if (!before)
		leave_for_later(a, at);
	if (blocks_lock())
		blocks_unlock();
}

void block_free(void *p)
{
	struct arena *a = arena_of(p);
	uint32_t at = a ? granule_of(a, p) : 0;
	uint8_t state = a ? run_state(a, at) : UNUSED;

	if (state == SLOTS) {
		free_slot(a, at, p);
		return;
	}
	if (!a || (size_t)((char *)p - a->base) % ARENA_GRANULE || state == UNUSED || state == TAIL)
		wrong_free("invalid pointer", p);
	if (!run_change_state(a, at, USED, FREED))
		wrong_free("double free detected", p);
	if (blocks_lock()) {
		run_set_state(a, at, USED);
		free_run(a, at);
		blocks_unlock();
	} else {
		leave_for_later(a, at);
	}
}

/* ---- the cache ---- */

static void free_cached(void *p)
{
	struct arena *a = arena_of(p);

	if (a && run_change_state(a, granule_of(a, p), CACHED, USED))
		free_run(a, granule_of(a, p));
}

void blocks_drain_cache(void)
{
	cache_drain(free_cached);
}

void *blocks_take_cached(uint32_t len)
{
	void *p = lock_frozen() ? NULL : cache_take(len);
	struct arena *a = p ? arena_of(p) : NULL;

	if (!a)
		return NULL;
	run_change_state(a, granule_of(a, p), CACHED, USED);
	if (__builtin_expect(a->state == ARENA_SHARED, 1))
		return p;
	/* A fork has retired the arena meanwhile. */
	block_free(p);
	return NULL;
}

/* Leave it where its thread finds it again. */
bool block_free_cached(void *p)
{
	struct arena *a = arena_of(p);
	uint32_t at = a ? granule_of(a, p) : 0;
	uint32_t len;

	if (!a || (size_t)((char *)p - a->base) % ARENA_GRANULE || a->state != ARENA_SHARED ||
	    run_state(a, at) != USED || lock_frozen())
		return false;
	len = a->granules[at].len;
	/* The change of state also catches a block that is freed twice. */
	if (len > CACHE_LEN_MAX || blocks_are_altered(a, at, len) ||
	    !run_change_state(a, at, USED, CACHED))
		return false;
	if (cache_give(p, len))
		return true;
	run_change_state(a, at, CACHED, USED);
	return false;
}
