/* SPDX-License-Identifier: MIT */
/* blocks.c - what the wrappers ask for, out of runs (runs.h) and slots (slots.h). */
#include <string.h>

#include "block_cache.h"
#include "blocks_internal.h"
#include "shim.h"
#include "slots.h"
#include "stats.h"
#include "sys.h"

/* ---- allocating ---- */

#define ROOM_MIN (1UL << 20)  /* to grow in: so large a block gets a new arena for it */
#define ROOM_MAX (64UL << 20) /* bytes behind a block */

/* Hot: counted without a locked instruction, so threads may lose a count. */
static void count_captured(size_t size)
{
	stat_add_hot(STAT_CAPTURED, 1);
	stat_add_hot(STAT_CAPTURED_BYTES, size);
}

static uint32_t granules_for(size_t size)
{
	return size ? (uint32_t)((size + ARENA_GRANULE - 1) / ARENA_GRANULE) : 1;
}

void *block_alloc_cached(size_t size, size_t align)
{
	uint32_t len = granules_for(size);
	unsigned int shift;
	void *p;

	if (!size || size > CACHE_LEN_MAX * ARENA_GRANULE || align > ARENA_GRANULE ||
	    slot_fits(size, align, &shift))
		return NULL;
	p = blocks_take_cached(len);
	if (p)
		count_captured(size);
	return p;
}

struct taken {
	struct arena *arena;
	uint32_t at;
	bool clean; /* never used: it is zero */
	bool fresh; /* it may not exist */
};

/* Another arena, with room for @bytes. */
static bool add_arena(size_t bytes, struct taken *t)
{
	if (!shim_mark_owner() || shim.owner != sys_getpid())
		return false;
	t->arena = arena_new(bytes);
	if (t->arena)
		blocks_news();
	return t->arena != NULL;
}

static bool take_run(uint32_t len, size_t align, struct taken *t)
{
	size_t bytes = (size_t)len * ARENA_GRANULE;

	for (unsigned int i = 0; i < arena_slots; i++) {
		t->arena = &arenas[i];
		if (t->arena->state != ARENA_SHARED || !t->arena->granules)
			continue;
		if (run_take(t->arena, len, align, &t->at, &t->clean)) {
			t->fresh = t->clean || t->arena->purged;
			t->arena->purged -= len < t->arena->purged ? len : t->arena->purged;
			if (!t->clean)
				blocks_handed_out_again(len);
			return true;
		}
	}
	/* What alignment may cost, so that a fresh arena surely fits. */
	if (align > ARENA_GRANULE && align < ARENA_ALIGN)
		bytes += align;
	t->fresh = true;
	return add_arena(bytes, t) && run_take(t->arena, len, align, &t->at, &t->clean);
}

static bool take_roomy(uint32_t len, uint32_t room, struct taken *t)
{
	for (unsigned int i = 0; i < arena_slots; i++) {
		t->arena = &arenas[i];
		if (t->arena->state != ARENA_SHARED || !t->arena->granules ||
		    !run_take_roomy(t->arena, len, room, &t->at))
			continue;
		if (t->at + len < t->arena->high)
			blocks_handed_out_again(len);
		return true;
	}
	return false;
}

static void *take_slot(unsigned int shift, struct taken *t)
{
	void *p = slot_take(shift);

	if (p)
		return p;
	if (!take_run(1, ARENA_GRANULE, t))
		return NULL;
	slot_cut(t->arena, t->at, shift);
	return slot_take(shift);
}

static void *take(size_t size, size_t align, struct taken *t)
{
	unsigned int shift;

	if (slot_fits(size, align, &shift))
		return take_slot(shift, t);
	if (!take_run(granules_for(size), align < ARENA_GRANULE ? ARENA_GRANULE : align, t))
		return NULL;
	return t->arena->base + (size_t)t->at * ARENA_GRANULE;
}

void *block_alloc(size_t size, size_t align, bool zero)
{
	struct taken t = { .clean = false };
	void *p;

	if (size > ARENA_SIZE_MAX) {
		stat_add(STAT_TOO_BIG, 1);
		return NULL;
	}
	if (align > ARENA_ALIGN) {
		stat_add(STAT_ODD_ALIGNMENT, 1);
		return NULL;
	}
	if (!blocks_lock_patiently()) {
		stat_add(STAT_BUSY, 1);
		return NULL;
	}
	p = take(size, align, &t);
	blocks_unlock();
	if (p && t.fresh)
		blocks_events.fresh_block(p, size);
	if (!p) {
		stat_add(STAT_NO_ARENA, 1);
		return NULL;
	}
	if (zero && !t.clean)
		memset(p, 0, size);
	count_captured(size);
	return p;
}

static bool take_growing(size_t size, struct taken *t)
{
	uint32_t len = granules_for(size);
	size_t more = 3 * size < ROOM_MAX ? 3 * size : ROOM_MAX;
	uint32_t room = len + granules_for(more);

	if (take_roomy(len, room, t))
		return true;
	if (size >= ROOM_MIN && add_arena(size + more, t) && take_roomy(len, room, t))
		return true;
	return take_run(len, ARENA_GRANULE, t);
}

void *block_alloc_growing(size_t size)
{
	struct taken t = { .clean = false };
	bool done;

	if (size > ARENA_SIZE_MAX / 2 || !blocks_lock_patiently())
		return NULL;
	done = take_growing(size + size / 2, &t);
	blocks_unlock();
	if (!done) {
		stat_add(STAT_NO_ARENA, 1);
		return NULL;
	}
	count_captured(size);
	return t.arena->base + (size_t)t.at * ARENA_GRANULE;
}

void blocks_ensure_arena(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state == ARENA_SHARED)
			return;
	if (shim_mark_owner() && shim.owner == sys_getpid())
		if (arena_new(ARENA_GRANULE))
			blocks_news();
}

/* ---- size ---- */

/* Its owner asks, and nobody else changes it: no lock. */
size_t block_size(const void *p)
{
	const struct arena *a = arena_of(p);
	uint32_t at = a ? granule_of(a, p) : 0;
	size_t within = a ? (size_t)((const char *)p - a->base) % ARENA_GRANULE : 1;

	if (!a)
		return 0;
	if (run_state(a, at) == SLOTS)
		return a->granules[at].taken & slot_bit(a, at, within)
			       ? 1UL << a->granules[at].slot_shift
			       : 0;
	return run_state(a, at) == USED && !within ? (size_t)a->granules[at].len * ARENA_GRANULE
						   : 0;
}

/* What grew grows again: half as much more, if there is room. */
static bool resize_run(struct arena *a, uint32_t at, size_t have, size_t size)
{
	uint32_t high = a->high;
	uint32_t end = at + (uint32_t)(have / ARENA_GRANULE);
	bool done = size > have && size <= ARENA_SIZE_MAX / 2 &&
		    run_resize(a, at, granules_for(size + size / 2));

	if (!done && !run_resize(a, at, granules_for(size)))
		return false;
	high = at + a->granules[at].len < high ? at + a->granules[at].len : high;
	if (high > end)
		blocks_handed_out_again(high - end);
	return true;
}

bool block_resize(void *p, size_t size)
{
	struct arena *a = arena_of(p);
	uint32_t at = a ? granule_of(a, p) : 0;
	size_t have = block_size(p);
	bool done = false;

	if (!a || !size || size > ARENA_SIZE_MAX || !have)
		return false;
	if (run_state(a, at) == SLOTS)
		return size <= have && size > have / 2;
	if (granules_for(size) * ARENA_GRANULE == have)
		return true;
	if (!blocks_lock_patiently())
		return size <= have; /* it stays as long as it was */
	if (!a->torn && blocks_restore(a, at, a->granules[at].len))
		done = resize_run(a, at, have, size);
	blocks_unlock();
	return done;
}

bool blocks_valid(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && arenas[i].granules && !runs_valid(&arenas[i]))
			return false;
	return true;
}
