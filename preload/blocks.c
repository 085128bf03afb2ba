/* SPDX-License-Identifier: MIT */
/*
 * blocks.c - what the wrappers ask for, out of runs (runs.h) and slots (slots.h).
 *
 * A block that is freed while somebody else has the lock joins a list to which threads
 * only ever add, and which the next holder takes as a whole.
 */
#include "blocks.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "block_cache.h"
#include "common/log.h"
#include "lock.h"
#include "marks.h"
#include "regions.h"
#include "shim.h"
#include "slots.h"
#include "stats.h"
#include "sys.h"

/* What stays with us, though it is free, beside an eighth of what is used. */
#define KEEP_FREE (8UL << 20)
/* Shorter free runs are not worth a system call. */
#define PURGE_MIN (256UL << 10)

static _Atomic uint32_t waiting; /* the first freed granule that waits, by its name */
static atomic_bool news;	 /* servers should know: an arena was made, or renewed */
static size_t dirty;		 /* granules freed and not handed out again, about */

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

/* ---- memory goes back ---- */

static size_t used_granules(void)
{
	size_t used = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state == ARENA_SHARED && arenas[i].granules)
			used += arenas[i].used;
	return used;
}

static void punch(char *at, size_t len, void *arg)
{
	const struct arena *a = arg;

	if (len >= PURGE_MIN)
		memfile_punch(&a->file, a->offset + (uint64_t)(at - a->base), len);
}

/* Free memory that piled up goes back.  A server holds what it has registered, so for
 * it the arena is another one from here on. */
static void purge(void)
{
	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];

		if (a->state != ARENA_SHARED || !a->granules || a->high == a->used)
			continue;
		blocks_for_each_free(a, punch, a);
		arena_renew(a);
		news = true;
	}
	dirty = 0;
}

static bool another_is_empty(const struct arena *but)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (&arenas[i] != but && arenas[i].state == ARENA_SHARED && arenas[i].granules &&
		    !arenas[i].used)
			return true;
	return false;
}

static void release_arena(struct arena *a)
{
	runs_forget(a);
	news = true;
	dirty -= dirty < a->high ? dirty : a->high;
	arena_release(a);
}

static void after_free(struct arena *a, uint32_t len)
{
	if (a->state == ARENA_RETIRED) {
		if (!a->used && !a->torn)
			release_arena(a);
		return;
	}
	dirty += len;
	if (!a->used && (a->len > 2 * KEEP_FREE || another_is_empty(a)))
		release_arena(a);
	else if (dirty * ARENA_GRANULE > KEEP_FREE && dirty > used_granules() / 8)
		purge();
}

/* ---- freeing ---- */

static bool altered(const struct arena *a, uint32_t at, uint32_t len)
{
	for (uint32_t word = at / 64; word <= (at + len - 1) / 64; word++) {
		uint64_t bits = atomic_load_explicit(&a->altered[word], memory_order_relaxed);

		if (word == at / 64)
			bits &= ~0ULL << at % 64;
		if (word == (at + len - 1) / 64)
			bits &= ~0ULL >> (63 - (at + len - 1) % 64);
		if (bits)
			return true;
	}
	return false;
}

static void set_altered(struct arena *a, uint32_t at, uint32_t len, bool value)
{
	for (uint32_t i = at; i < at + len; i++) {
		if (value)
			atomic_fetch_or(&a->altered[i / 64], 1ULL << i % 64);
		else
			atomic_fetch_and(&a->altered[i / 64], ~(1ULL << i % 64));
	}
}

void blocks_altered(const void *addr, size_t len)
{
	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];
		const char *start = addr;
		const char *end = start + len;

		if (a->state == ARENA_EMPTY || !a->granules || a->base >= end ||
		    a->base + a->len <= start)
			continue;
		start = start > a->base ? start : a->base;
		end = end < a->base + a->len ? end : a->base + a->len;
		set_altered(a, (uint32_t)((size_t)(start - a->base) / ARENA_GRANULE),
			    (uint32_t)((size_t)(end - start) / ARENA_GRANULE), true);
	}
}

/* The run is to be used anew: readable, writable, inherited by children. */
static bool restore(struct arena *a, uint32_t at, uint32_t len)
{
	char *p = a->base + (size_t)at * ARENA_GRANULE;
	size_t bytes = (size_t)len * ARENA_GRANULE;

	if (!altered(a, at, len))
		return true;
	if (sys_call(SYS_mprotect, (long)p, (long)bytes, PROT_READ | PROT_WRITE, 0, 0, 0) < 0)
		return false;
	sys_madvise(p, bytes, MADV_DOFORK);
	if (!marks_clear(MARK_WIPE, p, bytes) || !marks_clear(MARK_DONTFORK, p, bytes))
		return false;
	set_altered(a, at, len, false);
	return true;
}

static void free_run(struct arena *a, uint32_t at)
{
	uint32_t len = a->granules[at].len;

	/* A block with holes in it, or that stays protected, can serve nobody any more. */
	if (a->torn || !restore(a, at, len))
		return;
	/* Private to us since a fork: no server holds it, so it can go back. */
	if (a->state == ARENA_RETIRED)
		sys_madvise(a->base + (size_t)at * ARENA_GRANULE, (size_t)len * ARENA_GRANULE,
			    MADV_DONTNEED);
	run_give_back(a, at);
	after_free(a, len);
}

static uint32_t granule_of(const struct arena *a, const void *p)
{
	return (uint32_t)((size_t)((const char *)p - a->base) / ARENA_GRANULE);
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
	uint8_t state = a && at < a->high ? run_state(a, at) : UNUSED;

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

	if (run_change_state(a, granule_of(a, p), CACHED, USED))
		free_run(a, granule_of(a, p));
}

void blocks_drain_cache(void)
{
	cache_drain(free_cached);
}

static void *take_cached(uint32_t len)
{
	void *p = lock_frozen() ? NULL : cache_take(len);
	struct arena *a = p ? arena_of(p) : NULL;

	if (!p)
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
	if (len > CACHE_LEN_MAX || altered(a, at, len) || !run_change_state(a, at, USED, CACHED))
		return false;
	if (cache_give(p, len))
		return true;
	run_change_state(a, at, CACHED, USED);
	return false;
}

/* ---- allocating ---- */

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
	p = take_cached(len);
	if (p)
		count_captured(size);
	return p;
}

struct taken {
	struct arena *arena;
	uint32_t at;
	bool clean; /* never used: it is zero */
};

static bool take_run(uint32_t len, size_t align, struct taken *t)
{
	size_t bytes = (size_t)len * ARENA_GRANULE;

	for (unsigned int i = 0; i < arena_slots; i++) {
		t->arena = &arenas[i];
		if (t->arena->state != ARENA_SHARED || !t->arena->granules)
			continue;
		if (run_take(t->arena, len, align, &t->at, &t->clean)) {
			if (!t->clean)
				dirty -= dirty < len ? dirty : len;
			return true;
		}
	}
	if (!shim_mark_owner() || shim.owner != sys_getpid())
		return false;
	/* What alignment may cost, so that a fresh arena surely fits. */
	if (align > ARENA_GRANULE && align < ARENA_ALIGN)
		bytes += align;
	t->arena = arena_new(bytes);
	if (!t->arena)
		return false;
	news = true;
	return run_take(t->arena, len, align, &t->at, &t->clean);
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
	if (!blocks_lock()) {
		stat_add(STAT_BUSY, 1);
		return NULL;
	}
	p = take(size, align, &t);
	blocks_unlock();
	if (p && t.clean)
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

void blocks_ensure_arena(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state == ARENA_SHARED)
			return;
	if (shim_mark_owner() && shim.owner == sys_getpid())
		news = arena_new(ARENA_GRANULE) != NULL;
}

/* ---- size ---- */

/* Its owner asks, and nobody else changes it: no lock. */
size_t block_size(const void *p)
{
	const struct arena *a = arena_of(p);
	uint32_t at = a ? granule_of(a, p) : 0;
	size_t within = a ? (size_t)((const char *)p - a->base) % ARENA_GRANULE : 1;

	if (!a || at >= a->high)
		return 0;
	if (run_state(a, at) == SLOTS)
		return a->granules[at].taken & slot_bit(a, at, within)
			       ? 1UL << a->granules[at].slot_shift
			       : 0;
	return run_state(a, at) == USED && !within ? (size_t)a->granules[at].len * ARENA_GRANULE
						   : 0;
}

bool block_resize(void *p, size_t size)
{
	struct arena *a = arena_of(p);
	uint32_t at = a ? granule_of(a, p) : 0;
	size_t have = block_size(p);
	bool done = false;

	if (!size || size > ARENA_SIZE_MAX || !have)
		return false;
	if (run_state(a, at) == SLOTS)
		return size <= have && size > have / 2;
	if (granules_for(size) * ARENA_GRANULE == have)
		return true;
	if (!blocks_lock())
		return size <= have; /* it stays as long as it was */
	if (!a->torn && restore(a, at, a->granules[at].len))
		done = run_resize(a, at, granules_for(size));
	blocks_unlock();
	return done;
}

/* ---- arenas as a whole ---- */

static void each_run(const struct arena *a, bool free,
		     void (*each)(char *at, size_t len, void *arg), void *arg)
{
	for (uint32_t at = 0, next; at < a->high; at = next) {
		uint8_t state = run_state(a, at);

		next = at + a->granules[at].len;
		if (free ? state == FREE : state == USED || state == SLOTS)
			each(a->base + (size_t)at * ARENA_GRANULE,
			     (size_t)(next - at) * ARENA_GRANULE, arg);
	}
}

void blocks_for_each_used(const struct arena *a, void (*each)(char *at, size_t len, void *arg),
			  void *arg)
{
	each_run(a, false, each, arg);
}

void blocks_for_each_free(const struct arena *a, void (*each)(char *at, size_t len, void *arg),
			  void *arg)
{
	each_run(a, true, each, arg);
}

void blocks_retire(struct arena *a)
{
	a->state = ARENA_RETIRED;
	if (!a->used && !a->torn)
		release_arena(a);
}

static size_t granules_bytes(const struct arena *a)
{
	return a->len / ARENA_GRANULE * sizeof(struct granule);
}

static size_t altered_bytes(const struct arena *a)
{
	return (a->len / ARENA_GRANULE + 63) / 64 * sizeof(uint64_t);
}

bool blocks_make_granules(struct arena *a)
{
	long map = sys_mmap(NULL, granules_bytes(a) + altered_bytes(a), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (sys_is_error(map))
		return false;
	a->granules = (struct granule *)map;
	a->altered = (_Atomic uint64_t *)(map + (long)granules_bytes(a));
	return true;
}

void blocks_free_granules(struct arena *a)
{
	if (a->granules)
		sys_munmap(a->granules, granules_bytes(a) + altered_bytes(a));
	a->granules = NULL;
}

bool blocks_valid(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && arenas[i].granules && !runs_valid(&arenas[i]))
			return false;
	return true;
}
