/* SPDX-License-Identifier: MIT */
/*
 * blocks.c - runs of granules, in bins by size, joined when freed.
 *
 *   granules:  | used run   | free run        | used | never used ... |
 *   metadata:    U . . . U    F . . . . . . F   U                     ^ high
 *
 * The first and the last granule of a run carry its length and state (Knuth's
 * boundary tags, but in private memory), so that a freed run finds its free
 * neighbours at once.  Free runs hang in bins, one per power of two; granules
 * from "high" on were never handed out and are zero, which calloc uses.
 */
#include "blocks.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "block_cache.h"
#include "extents.h"
#include "stats.h"
#include "sys.h"

/* CACHED: free for the program, used for everything here but blocks_for_each_used(). */
enum granule_state { UNUSED, FREE, USED, CACHED };

#define BINS 21U /* runs of 1 .. 2^20 granules: 4 GiB */
#define BIN_SCAN_MAX 64

static uint32_t bins[ARENAS_MAX][BINS]; /* first free run, granule index + 1 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* initial-exec: the first use in a thread must not allocate */
static _Thread_local volatile bool locked_here __attribute__((tls_model("initial-exec")));

void blocks_lock(void)
{
	/* First, so that no signal handler finds the lock taken and this unset. */
	locked_here = true;
	pthread_mutex_lock(&lock);
}

void blocks_unlock(void)
{
	pthread_mutex_unlock(&lock);
	locked_here = false;
}

bool blocks_locked_here(void)
{
	return locked_here;
}

void blocks_lock_reset(void)
{
	lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static uint32_t nr_granules(const struct arena *a)
{
	return (uint32_t)(a->len / ARENA_GRANULE);
}

static unsigned int bin_of(uint32_t len)
{
	return 31U - (unsigned int)__builtin_clz(len);
}

static uint32_t *bin_head(const struct arena *a, uint32_t len)
{
	return &bins[a - arenas][bin_of(len)];
}

/*
 * The first granule's state of a block is also read and written without the lock,
 * by the one thread that owns the block at that moment; those who look at it
 * with the lock only ask whether it is FREE, which it then is not.
 */
static uint8_t state_of(const struct arena *a, uint32_t at)
{
	return atomic_load_explicit(&a->granules[at].state, memory_order_relaxed);
}

static void set_state(struct arena *a, uint32_t at, enum granule_state state)
{
	atomic_store_explicit(&a->granules[at].state, (uint8_t)state, memory_order_relaxed);
}

static void mark(struct arena *a, uint32_t at, uint32_t len, enum granule_state state)
{
	a->granules[at].len = a->granules[at + len - 1].len = len;
	set_state(a, at, state);
	set_state(a, at + len - 1, state);
}

static void bin_insert(struct arena *a, uint32_t at, uint32_t len)
{
	uint32_t *head = bin_head(a, len);

	mark(a, at, len, FREE);
	a->granules[at].prev = 0;
	a->granules[at].next = *head;
	if (*head)
		a->granules[*head - 1].prev = at + 1;
	*head = at + 1;
}

static void bin_remove(struct arena *a, uint32_t at)
{
	struct granule *g = &a->granules[at];

	if (g->prev)
		a->granules[g->prev - 1].next = g->next;
	else
		*bin_head(a, g->len) = g->next;
	if (g->next)
		a->granules[g->next - 1].prev = g->prev;
}

/* Where in the run at @at a block of @align would start. */
static uint32_t aligned_start(const struct arena *a, uint32_t at, size_t align)
{
	uintptr_t address = (uintptr_t)a->base + (uintptr_t)at * ARENA_GRANULE;

	address = (address + align - 1) & ~(uintptr_t)(align - 1);
	return (uint32_t)((address - (uintptr_t)a->base) / ARENA_GRANULE);
}

static bool fits(const struct arena *a, uint32_t at, uint32_t room, uint32_t len, size_t align)
{
	uint32_t start = aligned_start(a, at, align);

	return start - at <= room && len <= room - (start - at);
}

/* Cut [start, start+len) out of the free run at @at, which is in no bin now. */
static void carve(struct arena *a, uint32_t at, uint32_t room, uint32_t start, uint32_t len)
{
	if (start > at)
		bin_insert(a, at, start - at);
	if (at + room > start + len)
		bin_insert(a, start + len, at + room - (start + len));
	mark(a, start, len, USED);
	a->used += len;
}

static bool take_from_bins(struct arena *a, uint32_t len, size_t align, uint32_t *ret)
{
	for (unsigned int bin = bin_of(len); bin < BINS; bin++) {
		uint32_t at = bins[a - arenas][bin];

		/* Only the first bin may hold runs that are too short. */
		for (int i = 0; at && i < BIN_SCAN_MAX; i++) {
			uint32_t room = a->granules[at - 1].len;

			if (fits(a, at - 1, room, len, align)) {
				bin_remove(a, at - 1);
				*ret = aligned_start(a, at - 1, align);
				carve(a, at - 1, room, *ret, len);
				return true;
			}
			at = a->granules[at - 1].next;
		}
	}
	return false;
}

/* Join the free run [at, at+len) with free neighbours and bin the result. */
static void give_back(struct arena *a, uint32_t at, uint32_t len)
{
	if (at > 0 && state_of(a, at - 1) == FREE) {
		uint32_t before = a->granules[at - 1].len;

		bin_remove(a, at - before);
		set_state(a, at - 1, UNUSED);
		set_state(a, at, UNUSED);
		at -= before;
		len += before;
	}
	if (at + len < a->high && state_of(a, at + len) == FREE) {
		uint32_t after = a->granules[at + len].len;

		bin_remove(a, at + len);
		set_state(a, at + len, UNUSED);
		set_state(a, at + len - 1, UNUSED);
		len += after;
	}
	bin_insert(a, at, len);
}

static bool take_from_top(struct arena *a, uint32_t len, size_t align, uint32_t *ret)
{
	uint32_t at = a->high;

	if (!fits(a, at, nr_granules(a) - at, len, align))
		return false;
	*ret = aligned_start(a, at, align);
	a->high = *ret + len;
	mark(a, *ret, len, USED);
	a->used += len;
	/* What alignment skipped may have a free run in front of it. */
	if (*ret > at)
		give_back(a, at, *ret - at);
	return true;
}

/* @ret_clean: the block was never used, so it is zero. */
static void *take_from(struct arena *a, uint32_t len, size_t align, bool *ret_clean)
{
	uint32_t at;

	if (a->state != ARENA_SHARED || !a->granules)
		return NULL;
	*ret_clean = false;
	if (!take_from_bins(a, len, align, &at)) {
		*ret_clean = true;
		if (!take_from_top(a, len, align, &at))
			return NULL;
	}
	return a->base + (size_t)at * ARENA_GRANULE;
}

static void *take(uint32_t len, size_t align, bool *ret_clean)
{
	struct arena *a;
	void *p;

	for (unsigned int i = 0; i < arena_slots; i++) {
		p = take_from(&arenas[i], len, align, ret_clean);
		if (p)
			return p;
	}
	/* What alignment may cost, so that a fresh arena surely fits. */
	a = blocks_events.need_arena((size_t)len * ARENA_GRANULE +
				     (align > ARENA_GRANULE && align < ARENA_ALIGN ? align : 0));
	return a ? take_from(a, len, align, ret_clean) : NULL;
}

static void free_locked(struct arena *a, uint32_t at);

static bool change_state(struct arena *a, uint32_t at, enum granule_state from,
			 enum granule_state to)
{
	if (state_of(a, at) != from)
		return false;
	set_state(a, at, to);
	return true;
}

static uint32_t granule_of(const struct arena *a, const void *p)
{
	return (uint32_t)((size_t)((const char *)p - a->base) / ARENA_GRANULE);
}

static void free_cached(void *p)
{
	struct arena *a = arena_of(p);

	change_state(a, granule_of(a, p), CACHED, USED);
	free_locked(a, granule_of(a, p));
}

void blocks_drain_cache(void)
{
	cache_drain(free_cached);
}

static void *take_cached(uint32_t len)
{
	void *p = cache_take(len);
	struct arena *a = p ? arena_of(p) : NULL;

	if (!p)
		return NULL;
	if (__builtin_expect(a->state == ARENA_SHARED, 1)) {
		change_state(a, granule_of(a, p), CACHED, USED);
		return p;
	}
	/* A fork has retired the arena meanwhile. */
	blocks_lock();
	free_cached(p);
	blocks_unlock();
	return NULL;
}

/* Hot: counted without a locked instruction, so threads may lose a count. */
static void count_captured(size_t size)
{
	stat_add_hot(STAT_CAPTURED, 1);
	stat_add_hot(STAT_CAPTURED_BYTES, size);
}

void *block_alloc_cached(size_t size, size_t align)
{
	uint32_t len = (uint32_t)((size + ARENA_GRANULE - 1) / ARENA_GRANULE);
	void *p;

	if (!size || size > CACHE_LEN_MAX * ARENA_GRANULE || align > ARENA_GRANULE)
		return NULL;
	p = take_cached(len);
	if (p)
		count_captured(size);
	return p;
}

void *block_alloc(size_t size, size_t align, bool zero)
{
	bool clean = false;
	uint32_t len;
	void *p;

	if (size > ARENA_SIZE_MAX) {
		stat_add(STAT_TOO_BIG, 1);
		return NULL;
	}
	if (align > ARENA_ALIGN) {
		stat_add(STAT_ODD_ALIGNMENT, 1);
		return NULL;
	}
	len = (uint32_t)((size + ARENA_GRANULE - 1) / ARENA_GRANULE);
	if (!len)
		len = 1;
	blocks_lock();
	p = take(len, align < ARENA_GRANULE ? ARENA_GRANULE : align, &clean);
	blocks_unlock();
	if (!p) {
		stat_add(STAT_NO_ARENA, 1);
		return NULL;
	}
	if (zero && !clean)
		memset(p, 0, (size_t)len * ARENA_GRANULE);
	count_captured(size);
	return p;
}

/* The used run that starts at @p. */
static bool find_block(const void *p, struct arena **ret_arena, uint32_t *ret_at)
{
	struct arena *a = arena_of(p);
	size_t offset = a ? (size_t)((const char *)p - a->base) : 1;
	uint32_t at = (uint32_t)(offset / ARENA_GRANULE);

	if (!a || offset % ARENA_GRANULE || state_of(a, at) != USED)
		return false;
	*ret_arena = a;
	*ret_at = at;
	return true;
}

static void forget_tags(struct arena *a, uint32_t at, uint32_t len)
{
	set_state(a, at, UNUSED);
	set_state(a, at + len - 1, UNUSED);
}

static void release_if_empty(struct arena *a)
{
	if (a->state != ARENA_RETIRED || !a->granules || a->used)
		return;
	memset(bins[a - arenas], 0, sizeof(bins[0]));
	blocks_events.arena_gone(a);
	arena_release(a);
}

static void free_locked(struct arena *a, uint32_t at)
{
	uint32_t len = a->granules[at].len;
	char *p = a->base + (size_t)at * ARENA_GRANULE;

	/* A block that stays protected can serve nobody any more. */
	if (!extents_restore(p, (size_t)len * ARENA_GRANULE))
		return;
	a->used -= len;
	forget_tags(a, at, len);
	/* Private to us since a fork: no server holds it, so it can go back. */
	if (a->state == ARENA_RETIRED)
		sys_madvise(p, (size_t)len * ARENA_GRANULE, MADV_DONTNEED);
	give_back(a, at, len);
	release_if_empty(a);
}

/* Leave it where its thread finds it again. */
bool block_free_cached(void *p)
{
	struct arena *a = arena_of(p);
	size_t offset = a ? (size_t)((char *)p - a->base) : 1;
	uint32_t at = (uint32_t)(offset / ARENA_GRANULE);
	uint32_t len;

	if (!a || offset % ARENA_GRANULE || a->state != ARENA_SHARED ||
	    atomic_load_explicit(&extents_odd, memory_order_relaxed))
		return false;
	len = a->granules[at].len;
	/* The change of state also catches a block that is freed twice. */
	if (len > CACHE_LEN_MAX || !change_state(a, at, USED, CACHED))
		return false;
	if (cache_give(p, len))
		return true;
	change_state(a, at, CACHED, USED);
	return false;
}

void block_free(void *p)
{
	struct arena *a;
	uint32_t at;

	blocks_lock();
	if (find_block(p, &a, &at))
		free_locked(a, at);
	else
		stat_add(STAT_BAD_FREE, 1);
	blocks_unlock();
}

size_t block_size(const void *p)
{
	struct arena *a;
	size_t size = 0;
	uint32_t at;

	blocks_lock();
	if (find_block(p, &a, &at))
		size = (size_t)a->granules[at].len * ARENA_GRANULE;
	blocks_unlock();
	return size;
}

static void shrink(struct arena *a, uint32_t at, uint32_t len)
{
	uint32_t rest = a->granules[at].len - len;

	if (!rest)
		return;
	forget_tags(a, at, len + rest);
	mark(a, at, len, USED);
	a->used -= rest;
	give_back(a, at + len, rest);
}

static bool grow(struct arena *a, uint32_t at, uint32_t len)
{
	uint32_t have = a->granules[at].len;
	uint32_t need = len - have;
	uint32_t room;

	if (a->state != ARENA_SHARED || at + have >= a->high || state_of(a, at + have) != FREE)
		return false;
	room = a->granules[at + have].len;
	if (room < need)
		return false;
	bin_remove(a, at + have);
	forget_tags(a, at + have, room);
	forget_tags(a, at, have);
	if (room > need)
		bin_insert(a, at + len, room - need);
	mark(a, at, len, USED);
	a->used += need;
	return true;
}

bool block_resize(void *p, size_t size)
{
	uint32_t len = (uint32_t)((size + ARENA_GRANULE - 1) / ARENA_GRANULE);
	struct arena *a;
	bool done = false;
	uint32_t at;

	if (!size || size > ARENA_SIZE_MAX)
		return false;
	blocks_lock();
	if (find_block(p, &a, &at)) {
		done = len <= a->granules[at].len || grow(a, at, len);
		if (done)
			shrink(a, at, len);
	}
	blocks_unlock();
	return done;
}

void blocks_for_each_used(struct arena *a, void (*each)(char *at, size_t len, void *arg), void *arg)
{
	for (uint32_t at = 0; at < a->high; at += a->granules[at].len)
		if (state_of(a, at) == USED)
			each(a->base + (size_t)at * ARENA_GRANULE,
			     (size_t)a->granules[at].len * ARENA_GRANULE, arg);
}

void blocks_retire(struct arena *a)
{
	a->state = ARENA_RETIRED;
	release_if_empty(a);
}

static bool run_valid(const struct arena *a, uint32_t at)
{
	uint32_t len = a->granules[at].len;
	uint8_t first = state_of(a, at);
	uint32_t last = at + len - 1;

	if (!len || at + len > a->high || first == UNUSED || a->granules[last].len != len)
		return false;
	return state_of(a, last) == first || (first == CACHED && state_of(a, last) == USED);
}

static bool arena_valid(const struct arena *a)
{
	uint8_t before = UNUSED;
	uint32_t used = 0;
	uint32_t at = 0;

	while (at < a->high) {
		uint8_t state = state_of(a, at);

		if (!run_valid(a, at) || (state == FREE && before == FREE))
			return false;
		if (state != FREE)
			used += a->granules[at].len;
		before = state;
		at += a->granules[at].len;
	}
	return at == a->high && used == a->used;
}

bool blocks_valid(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && arenas[i].granules &&
		    !arena_valid(&arenas[i]))
			return false;
	return true;
}
