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

#define ROOM_MAX (64UL << 20) /* bytes behind a block that grows */
/* A block that has grown to that lies where nothing gets in its way, if not too many do. */
#define GROWN_MIN (256UL << 10)
#define GROWN_ARENAS 8U

/* Hot: counted without a locked instruction, so threads may lose a count. */
static void count_captured(size_t size)
{
	stat_add_hot(STAT_CAPTURED, 1);
	stat_add_hot(STAT_CAPTURED_BYTES, size);
}

/* What is asked for, and what it grows by next. */
static size_t with_more(size_t size)
{
	return size + (size < GROWN_MIN ? size : size / 2);
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
static bool add_arena(size_t bytes, bool growing, struct taken *t)
{
	if (!shim_mark_owner() || shim.owner != sys_getpid())
		return false;
	t->arena = growing ? arena_new_growing(bytes) : arena_new(bytes);
	if (t->arena)
		blocks_news();
	return t->arena != NULL;
}

static bool take_run(uint32_t len, size_t align, struct taken *t)
{
	size_t bytes = (size_t)len * ARENA_GRANULE;

	for (unsigned int i = 0; i < arena_slots; i++) {
		t->arena = &arenas[i];
		if (!blocks_may_be_in(t->arena, false))
			continue;
		if (run_take(t->arena, len, align, &t->at, &t->clean)) {
			t->fresh = t->clean || t->arena->purged;
			t->arena->purged -= len < t->arena->purged ? len : t->arena->purged;
			if (!t->clean)
				blocks_handed_out_again(t->arena, len);
			return true;
		}
	}
	/* It begins on the most that can be asked for. */
	t->fresh = true;
	return add_arena(bytes, false, t) && run_take(t->arena, len, align, &t->at, &t->clean);
}

static bool take_room_in(struct arena *a, uint32_t len, uint32_t room, struct taken *t)
{
	t->arena = a;
	if (!run_take_roomy(a, len, room, &t->at))
		return false;
	if (t->at + len < a->high)
		blocks_handed_out_again(a, len);
	return true;
}

static bool take_roomy(uint32_t len, uint32_t room, bool growing, struct taken *t)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (blocks_may_be_in(&arenas[i], growing) && take_room_in(&arenas[i], len, room, t))
			return true;
	return false;
}

/* Alone where the arena can be extended, or, when many are, together with others. */
static bool take_grown(uint32_t len, uint32_t room, struct taken *t)
{
	size_t bytes = (size_t)room * ARENA_GRANULE;
	unsigned int nr = 0;

	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];

		if (!blocks_may_be_in(a, true))
			continue;
		nr++;
		if (!a->used && (a->len >= bytes || arena_extend(a, bytes)) &&
		    take_room_in(a, len, room, t))
			return true;
	}
	if (nr < GROWN_ARENAS && add_arena(bytes, true, t))
		return take_room_in(t->arena, len, room, t);
	return take_roomy(len, room, true, t);
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

	if (size >= GROWN_MIN && take_grown(len, room, t))
		return true;
	return take_roomy(len, room, false, t) || take_run(len, ARENA_GRANULE, t);
}

void *block_alloc_growing(size_t size)
{
	struct taken t = { .clean = false };
	bool done;
	char *p;

	if (size > ARENA_SIZE_MAX / 2 || !blocks_lock_patiently())
		return NULL;
	done = take_growing(with_more(size), &t);
	blocks_unlock();
	if (!done) {
		stat_add(STAT_NO_ARENA, 1);
		return NULL;
	}
	p = t.arena->base + (size_t)t.at * ARENA_GRANULE;
	blocks_events.fresh_block(p, size);
	count_captured(size);
	return p;
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

static bool grow_run(struct arena *a, uint32_t at, size_t size)
{
	uint32_t len = granules_for(size);

	if (a->growing && run_is_last(a, at) && (at + len) * ARENA_GRANULE > a->len)
		arena_extend(a, (at + len) * ARENA_GRANULE);
	return run_resize(a, at, len);
}

/* What grew grows again, if there is room. */
static bool resize_run(struct arena *a, uint32_t at, size_t have, size_t size)
{
	uint32_t high = a->high;
	uint32_t end = at + (uint32_t)(have / ARENA_GRANULE);
	bool done;

	/* Sooner or later it would have to be moved, with more in it. */
	if (size > have && size >= GROWN_MIN && !a->growing)
		return false;
	done = size > have && size <= ARENA_SIZE_MAX / 2 && grow_run(a, at, with_more(size));
	if (!done && !run_resize(a, at, granules_for(size)))
		return false;
	high = at + a->granules[at].len < high ? at + a->granules[at].len : high;
	if (high > end)
		blocks_handed_out_again(a, high - end);
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
	if (done && size > have)
		blocks_events.fresh_block((char *)p + have, size - have);
	return done;
}

bool blocks_valid(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && arenas[i].granules && !runs_valid(&arenas[i]))
			return false;
	return true;
}
