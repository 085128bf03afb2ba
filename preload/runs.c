/* SPDX-License-Identifier: MIT */
/* runs.c - see runs.h. */
#include "runs.h"

#include <string.h>

#define BINS 21U /* runs of 1 .. 2^20 granules: 4 GiB */
#define BIN_SCAN_MAX 64

static uint32_t bins[ARENAS_MAX][BINS]; /* first free run, granule index + 1 */

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

static void mark(struct arena *a, uint32_t at, uint32_t len, enum granule_state state)
{
	a->granules[at].len = a->granules[at + len - 1].len = len;
	if (len > 1)
		run_set_state(a, at + len - 1, state == USED ? TAIL : state);
	run_set_state(a, at, state);
}

/* One changes it at a time: no locked instruction. */
static void count_used(struct arena *a, uint32_t more)
{
	uint32_t used = atomic_load_explicit(&a->used, memory_order_relaxed);

	atomic_store_explicit(&a->used, used + more, memory_order_relaxed);
}

static void forget_tags(struct arena *a, uint32_t at, uint32_t len)
{
	run_set_state(a, at, UNUSED);
	run_set_state(a, at + len - 1, UNUSED);
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
	count_used(a, len);
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
static void join(struct arena *a, uint32_t at, uint32_t len)
{
	if (at > 0 && run_state(a, at - 1) == FREE) {
		uint32_t before = a->granules[at - 1].len;

		bin_remove(a, at - before);
		run_set_state(a, at - 1, UNUSED);
		run_set_state(a, at, UNUSED);
		at -= before;
		len += before;
	}
	if (at + len < a->high && run_state(a, at + len) == FREE) {
		uint32_t after = a->granules[at + len].len;

		bin_remove(a, at + len);
		run_set_state(a, at + len, UNUSED);
		run_set_state(a, at + len - 1, UNUSED);
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
	count_used(a, len);
	/* What alignment skipped may have a free run in front of it. */
	if (*ret > at)
		join(a, at, *ret - at);
	return true;
}

bool run_take(struct arena *a, uint32_t len, size_t align, uint32_t *ret, bool *ret_clean)
{
	*ret_clean = false;
	if (take_from_bins(a, len, align, ret))
		return true;
	*ret_clean = true;
	return take_from_top(a, len, align, ret);
}

/* The free run below what was never used: as long as both together. */
static bool take_last(struct arena *a, uint32_t len, uint32_t room, uint32_t *ret)
{
	uint32_t have =
		a->high && run_state(a, a->high - 1) == FREE ? a->granules[a->high - 1].len : 0;

	*ret = a->high - have;
	if (nr_granules(a) - *ret < room)
		return false;
	if (!have)
		return take_from_top(a, len, ARENA_GRANULE, ret);
	bin_remove(a, *ret);
	if (len > have) {
		forget_tags(a, *ret, have);
		a->high = *ret + len;
		have = len;
	}
	carve(a, *ret, have, *ret, len);
	return true;
}

/* Memory that was used already first: it is there. */
bool run_take_roomy(struct arena *a, uint32_t len, uint32_t room, uint32_t *ret)
{
	for (unsigned int bin = BINS; bin-- > bin_of(room);) {
		uint32_t at = bins[a - arenas][bin];

		if (!at || a->granules[at - 1].len < room)
			continue;
		*ret = at - 1;
		room = a->granules[at - 1].len;
		bin_remove(a, at - 1);
		carve(a, at - 1, room, at - 1, len);
		return true;
	}
	return take_last(a, len, room, ret);
}

void run_give_back(struct arena *a, uint32_t at)
{
	uint32_t len = a->granules[at].len;

	count_used(a, 0 - len);
	forget_tags(a, at, len);
	join(a, at, len);
}

static void shrink(struct arena *a, uint32_t at, uint32_t len)
{
	uint32_t rest = a->granules[at].len - len;

	if (!rest)
		return;
	run_set_state(a, at + len + rest - 1, UNUSED);
	mark(a, at, len, USED);
	count_used(a, 0 - rest);
	join(a, at + len, rest);
}

static bool grow(struct arena *a, uint32_t at, uint32_t len)
{
	uint32_t have = a->granules[at].len;
	uint32_t need = len - have;
	uint32_t room;

	if (a->state != ARENA_SHARED)
		return false;
	if (at + have == a->high && need <= nr_granules(a) - a->high) {
		a->high += need;
	} else {
		if (at + have >= a->high || run_state(a, at + have) != FREE)
			return false;
		room = a->granules[at + have].len;
		if (room < need &&
		    (at + have + room < a->high || need > nr_granules(a) - at - have))
			return false;
		bin_remove(a, at + have);
		forget_tags(a, at + have, room);
		if (room > need)
			bin_insert(a, at + len, room - need);
		else if (at + len > a->high)
			a->high = at + len;
	}
	if (have > 1)
		run_set_state(a, at + have - 1, UNUSED);
	mark(a, at, len, USED);
	count_used(a, need);
	return true;
}

bool run_resize(struct arena *a, uint32_t at, uint32_t len)
{
	if (len > a->granules[at].len)
		return grow(a, at, len);
	shrink(a, at, len);
	return true;
}

bool run_is_last(const struct arena *a, uint32_t at)
{
	uint32_t end = at + a->granules[at].len;

	return end == a->high ||
	       (run_state(a, end) == FREE && end + a->granules[end].len == a->high);
}

void runs_forget(const struct arena *a)
{
	memset(bins[a - arenas], 0, sizeof(bins[0]));
}

static bool run_valid(const struct arena *a, uint32_t at)
{
	uint32_t len = a->granules[at].len;
	uint8_t first = run_state(a, at);
	uint32_t last = at + len - 1;

	if (!len || at + len > a->high || first == UNUSED || first == TAIL ||
	    a->granules[last].len != len)
		return false;
	return len == 1 || run_state(a, last) == (first == FREE ? FREE : TAIL);
}

bool runs_valid(const struct arena *a)
{
	uint8_t before = UNUSED;
	uint32_t used = 0;
	uint32_t at = 0;

	while (at < a->high) {
		uint8_t state = run_state(a, at);

		if (!run_valid(a, at) || (state == FREE && before == FREE))
			return false;
		if (state != FREE)
			used += a->granules[at].len;
		before = state;
		at += a->granules[at].len;
	}
	return at == a->high && used == a->used;
}
