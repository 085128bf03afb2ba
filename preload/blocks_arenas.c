/* SPDX-License-Identifier: MIT */
/* blocks_arenas.c - arenas as a whole: their bookkeeping, and when memory goes back. */
#include <sys/mman.h>

#include "blocks_internal.h"
#include "memfile.h"
#include "sys.h"

/* What stays with us, though it is free, beside an eighth of what is used. */
#define KEEP_FREE (8UL << 20)
/* Shorter free runs are not worth a system call. */
#define PURGE_MIN (256UL << 10)
/*
 * What servers hold they have to be told of, and what comes instead is copied until they
 * have it: so not what a program frees and takes again at each turn.  What was free all that
 * time it does not need; and no more is kept, whatever it is for.
 */
#define ARMED_PAUSE_MS 10000
#define ARMED_KEEP_FREE (32UL << 20)

static _Atomic size_t dirty; /* granules freed and not handed out again, about */
static size_t least_dirty;   /* since the last time that something was to go back */

static size_t free_granules(void)
{
	return atomic_load_explicit(&dirty, memory_order_relaxed);
}

/* One changes it at a time: no locked instruction. */
static void set_free(size_t granules)
{
	atomic_store_explicit(&dirty, granules, memory_order_relaxed);
	if (granules < least_dirty)
		least_dirty = granules;
}

static void fewer_free(uint32_t len)
{
	set_free(free_granules() - (free_granules() < len ? free_granules() : len));
}

size_t blocks_free_bytes(void)
{
	return free_granules() * ARENA_GRANULE;
}

void blocks_handed_out_again(uint32_t len)
{
	fewer_free(len);
}

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
		a->purged = a->high - a->used;
		arena_renew(a);
		blocks_news();
	}
	set_free(0);
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
	blocks_news();
	fewer_free(a->high);
	arena_release(a);
}

static bool is_too_much(size_t granules, size_t keep)
{
	return granules * ARENA_GRANULE > keep && granules > used_granules() / 8;
}

static bool may_go_back(void)
{
	static long long last, since; /* it went back; least_dirty is what it says */
	long long now;
	size_t least = least_dirty;

	if (!blocks_events.armed())
		return true;
	now = sys_now_ms();
	if (last && now - last < ARMED_PAUSE_MS)
		return false;
	if (!is_too_much(free_granules(), ARMED_KEEP_FREE)) {
		if (since && now - since < ARMED_PAUSE_MS)
			return false;
		least_dirty = free_granules();
		if (!since || !is_too_much(least, KEEP_FREE)) {
			since = now;
			return false;
		}
	}
	last = since = now;
	return true;
}

void blocks_after_free(struct arena *a, uint32_t len)
{
	if (a->state == ARENA_RETIRED) {
		if (!a->used && !a->torn)
			release_arena(a);
		return;
	}
	set_free(free_granules() + len);
	if (!a->used && (a->len > 2 * KEEP_FREE || another_is_empty(a))) {
		if (may_go_back())
			release_arena(a);
	} else if (is_too_much(free_granules(), KEEP_FREE) && may_go_back()) {
		purge();
	}
}

/* A free run whose ends agree; in the middle of a change they may not. */
static bool is_free_run(const struct arena *a, uint32_t at)
{
	uint32_t len = a->granules[at].len;

	return run_state(a, at) == FREE && len && len <= a->high - at &&
	       run_state(a, at + len - 1) == FREE && a->granules[at + len - 1].len == len;
}

/*
 * A fork may come in the middle of a change.  What is just being handed out or freed
 * nobody needs, and all other used runs are as they should be; so each is looked for
 * where it begins, and nothing else is relied on.
 */
void blocks_for_each_used(const struct arena *a, void (*each)(char *at, size_t len, void *arg),
			  void *arg)
{
	for (uint32_t at = 0, len; at < a->high; at += len) {
		uint8_t state = run_state(a, at);

		len = 1;
		if (state == USED || state == SLOTS) {
			len = a->granules[at].len;
			each(a->base + (size_t)at * ARENA_GRANULE, (size_t)len * ARENA_GRANULE,
			     arg);
		} else if (is_free_run(a, at)) {
			len = a->granules[at].len;
		}
	}
}

void blocks_for_each_free(const struct arena *a, void (*each)(char *at, size_t len, void *arg),
			  void *arg)
{
	for (uint32_t at = 0; at < a->high; at += a->granules[at].len)
		if (run_state(a, at) == FREE)
			each(a->base + (size_t)at * ARENA_GRANULE,
			     (size_t)a->granules[at].len * ARENA_GRANULE, arg);
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
