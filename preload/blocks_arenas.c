/* SPDX-License-Identifier: MIT */
/* blocks_arenas.c - arenas as a whole: their bookkeeping, and when memory goes back. */
#include <sys/mman.h>

#include "blocks_internal.h"
#include "memfile.h"
#include "sys.h"

/*
 * What stays with us, though it is free: an eighth of what is used, or that much.  Or as much as
 * the largest block that went back, with a little beside it, because such come again: glibc keeps
 * twice as much, and it too none that is larger than 32 MiB.
 */
#define KEEP_FREE (8UL << 20)
#define KEEP_BLOCK_MAX (32UL << 20)
/* Shorter free runs are not worth a system call. */
#define PURGE_MIN (256UL << 10)
/* Nor is so much in one call: bytes, or as much as is just being freed. */
#define PURGE_AT_ONCE (4UL << 20)
/*
 * What servers hold they have to be told of, and what comes instead is copied until they
 * have it: so not what a program frees and takes again at each turn.  What was free all that
 * time it does not need; and no more is kept, whatever it is for.
 */
#define ARMED_PAUSE_MS 10000
#define ARMED_KEEP_FREE (32UL << 20)

static _Atomic size_t dirty;	     /* of all arenas together */
static size_t least_dirty;	     /* since the last time that something was to go back */
static size_t keep_free = KEEP_FREE; /* bytes */

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

static void fewer_free(struct arena *a, uint32_t len)
{
	len = len < a->dirty ? len : a->dirty;
	a->dirty -= len;
	set_free(free_granules() - len);
}

size_t blocks_free_bytes(void)
{
	return free_granules() * ARENA_GRANULE;
}

void blocks_handed_out_again(struct arena *a, uint32_t len)
{
	fewer_free(a, len);
}

static size_t used_granules(void)
{
	size_t used = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state == ARENA_SHARED && arenas[i].granules)
			used += arenas[i].used;
	return used;
}

/* How far free memory is on its way back: nobody waits until all of it is there. */
static struct {
	bool under_way;
	unsigned int slot;
	size_t at;   /* bytes into that arena */
	size_t left; /* bytes, this time */
} purging;

static void punch_data(uint64_t from, size_t len, void *arg)
{
	struct arena *a = arg;

	len = len < purging.left ? len : purging.left;
	if (!len || !memfile_punch(&a->file, from, len))
		return;
	a->purged += (uint32_t)(len / ARENA_GRANULE);
	purging.left -= len;
	purging.at = from + len;
}

static void punch(char *at, size_t len, void *arg)
{
	struct arena *a = arg;
	size_t from = (size_t)(at - a->base), end = from + len;

	from = from > purging.at ? from : purging.at;
	/* What went back before is not there. */
	if (len >= PURGE_MIN && from < end && purging.left)
		memfile_each_data(&a->file, from, end - from, punch_data, a);
}

/* A server holds what it has registered, so for it the arena is another one from here on. */
static void purge_on(size_t bytes)
{
	purging.left = bytes;
	for (; purging.slot < arena_slots; purging.slot++, purging.at = 0) {
		struct arena *a = &arenas[purging.slot];
		size_t before = purging.left;

		if (a->state != ARENA_SHARED || !a->granules || a->high == a->used)
			continue;
		blocks_for_each_free(a, punch, a);
		if (purging.left < before) {
			arena_renew(a);
			blocks_news();
		}
		if (!purging.left)
			return; /* there may be more in this one */
	}
	purging.under_way = false;
}

/* Free memory that piled up goes back. */
static void purge(size_t bytes)
{
	purging.under_way = true;
	purging.slot = 0;
	purging.at = 0;
	for (unsigned int i = 0; i < arena_slots; i++)
		fewer_free(&arenas[i], arenas[i].dirty);
	purge_on(bytes);
}

static bool another_is_empty(const struct arena *but)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (&arenas[i] != but && blocks_may_be_in(&arenas[i], but->growing) &&
		    !arenas[i].used)
			return true;
	return false;
}

static void release_arena(struct arena *a)
{
	runs_forget(a);
	blocks_news();
	fewer_free(a, a->dirty);
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
		if (!since || !is_too_much(least, keep_free)) {
			since = now;
			return false;
		}
	}
	last = since = now;
	return true;
}

/* What servers hold they are told of, and that once. */
static size_t at_once(size_t len)
{
	if (blocks_events.armed())
		return SIZE_MAX;
	return len > PURGE_AT_ONCE ? len : PURGE_AT_ONCE;
}

static void keep_more(size_t len)
{
	if (len <= KEEP_BLOCK_MAX && len + KEEP_FREE / 2 > keep_free)
		keep_free = len + KEEP_FREE / 2;
}

void blocks_after_free(struct arena *a, uint32_t len)
{
	if (a->state == ARENA_RETIRED) {
		if (!a->used && !a->torn)
			release_arena(a);
		return;
	}
	a->dirty += len;
	set_free(free_granules() + len);
	if (!a->used && (is_too_much(a->high, 2 * keep_free) || another_is_empty(a))) {
		if (!may_go_back())
			return;
		release_arena(a);
	} else if (is_too_much(free_granules(), keep_free) && may_go_back()) {
		purge(at_once(len * ARENA_GRANULE));
	} else {
		if (purging.under_way && !blocks_events.armed())
			purge_on(at_once(len * ARENA_GRANULE));
		return;
	}
	keep_more(len * ARENA_GRANULE);
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
	return a->longest / ARENA_GRANULE * sizeof(struct granule);
}

static size_t altered_bytes(const struct arena *a)
{
	return (a->longest / ARENA_GRANULE + 63) / 64 * sizeof(uint64_t);
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
