/* SPDX-License-Identifier: MIT */
/*
 * extents.c - a table that is searched from end to end.
 *
 * Programs have a few dozen large mappings, and each change of them is a system
 * call already.
 */
#include "extents.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys.h"

static struct extent table[EXTENTS_MAX];
static unsigned int nr_entries; /* entries from here on were never used */

/* Where regions are; arenas of blocks are in the reservation.  Only ever widened. */
static _Atomic uintptr_t lowest = UINTPTR_MAX;
static _Atomic uintptr_t highest;
/* Something was changed once: freed blocks may have to be restored. */
atomic_bool extents_odd;

bool extents_touch(const void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;
	uintptr_t reserved = (uintptr_t)atomic_load_explicit(&arena_base, memory_order_relaxed);
	size_t size = atomic_load_explicit(&arena_reserved, memory_order_acquire);

	if (start < atomic_load_explicit(&highest, memory_order_relaxed) &&
	    start + len > atomic_load_explicit(&lowest, memory_order_relaxed))
		return true;
	return start < reserved + size && start + len > reserved;
}

static struct extent *unused_entry(void)
{
	for (unsigned int i = 0; i < nr_entries; i++)
		if (!table[i].len)
			return &table[i];
	return nr_entries < EXTENTS_MAX ? &table[nr_entries++] : NULL;
}

int extents_add(const struct arena *a, int prot)
{
	struct extent *e = unused_entry();

	if (!e)
		return -ENOMEM;
	*e = (struct extent){
		.start = a->base,
		.len = a->len,
		.arena = (uint16_t)(a - arenas),
		.prot = (uint8_t)prot,
	};
	if (a->granules)
		return 0;
	if ((uintptr_t)a->base < lowest)
		lowest = (uintptr_t)a->base;
	if ((uintptr_t)a->base + a->len > highest)
		highest = (uintptr_t)a->base + a->len;
	return 0;
}

static bool meets(const struct extent *e, const char *start, size_t len)
{
	return e->len && e->start < start + len && e->start + e->len > start;
}

/* Make @at a border between two extents.  Room must be there. */
static void split_at(const char *at)
{
	for (unsigned int i = 0; i < nr_entries; i++) {
		struct extent *e = &table[i];
		struct extent *rest;

		if (!e->len || at <= e->start || at >= e->start + e->len)
			continue;
		rest = unused_entry();
		*rest = *e;
		rest->start += at - e->start;
		rest->len -= (size_t)(at - e->start);
		e->len = (size_t)(at - e->start);
		return;
	}
}

static bool alike(const struct extent *a, const struct extent *b)
{
	return a->arena == b->arena && a->prot == b->prot && a->dontfork == b->dontfork &&
	       a->wipe == b->wipe && a->locked == b->locked && a->own == b->own;
}

/* Join @e with what follows it, if that is alike. */
static bool join_next(struct extent *e)
{
	for (unsigned int i = 0; i < nr_entries; i++) {
		struct extent *next = &table[i];

		if (!next->len || next->start != e->start + e->len || !alike(e, next))
			continue;
		e->len += next->len;
		next->len = 0;
		return true;
	}
	return false;
}

static void join_all(void)
{
	for (unsigned int i = 0; i < nr_entries; i++)
		while (table[i].len && join_next(&table[i]))
			;
}

/* Any range has two ends, each splits one extent at most; and one to add. */
bool extents_room(void)
{
	unsigned int free_entries = EXTENTS_MAX - nr_entries;

	join_all();
	for (unsigned int i = 0; i < nr_entries && free_entries < 3; i++)
		free_entries += !table[i].len;
	return free_entries >= 3;
}

static void set(struct extent *e, enum extent_change what, int value)
{
	switch (what) {
	case EXTENT_PROT:
		e->prot = (uint8_t)value;
		break;
	case EXTENT_DONTFORK:
		e->dontfork = value;
		break;
	case EXTENT_WIPE:
		e->wipe = value;
		break;
	case EXTENT_LOCKED:
		e->locked = value;
		break;
	case EXTENT_OWN:
		e->own = value;
		break;
	}
}

static bool plain(const struct extent *e)
{
	return e->prot == (PROT_READ | PROT_WRITE) && !e->dontfork && !e->wipe;
}

static bool restore(const struct extent *piece, void *arg)
{
	(void)arg;
	if (plain(piece))
		return true;
	sys_call(SYS_mprotect, (long)piece->start, (long)piece->len, PROT_READ | PROT_WRITE, 0, 0,
		 0);
	if (piece->dontfork)
		sys_madvise(piece->start, piece->len, MADV_DOFORK);
	extents_change(piece->start, piece->len, EXTENT_PROT, PROT_READ | PROT_WRITE);
	extents_change(piece->start, piece->len, EXTENT_DONTFORK, false);
	extents_change(piece->start, piece->len, EXTENT_WIPE, false);
	return true;
}

bool extents_restore(void *addr, size_t len)
{
	if (!atomic_load_explicit(&extents_odd, memory_order_relaxed))
		return true;
	return extents_room() && extents_each(addr, len, restore, NULL);
}

void extents_cut(const void *addr, size_t len)
{
	split_at(addr);
	split_at((const char *)addr + len);
	for (unsigned int i = 0; i < nr_entries; i++)
		if (meets(&table[i], addr, len))
			table[i].len = 0;
}

void extents_change(const void *addr, size_t len, enum extent_change what, int value)
{
	split_at(addr);
	split_at((const char *)addr + len);
	for (unsigned int i = 0; i < nr_entries; i++)
		if (meets(&table[i], addr, len))
			set(&table[i], what, value);
	if (what != EXTENT_OWN && what != EXTENT_LOCKED)
		atomic_store_explicit(&extents_odd, true, memory_order_relaxed);
}

bool extents_each(const void *addr, size_t len, bool (*each)(const struct extent *piece, void *arg),
		  void *arg)
{
	const char *start = addr;
	const char *end = start + len;
	unsigned int nr = nr_entries; /* what @each splits off is not visited */

	for (unsigned int i = 0; i < nr; i++) {
		struct extent piece = table[i];

		if (!meets(&piece, start, len))
			continue;
		if (piece.start + piece.len > end)
			piece.len = (size_t)(end - piece.start);
		if (piece.start < start) {
			piece.len -= (size_t)(start - piece.start);
			piece.start += start - piece.start;
		}
		if (!each(&piece, arg))
			return false;
	}
	return true;
}

bool extents_each_of(const struct arena *a, bool (*each)(const struct extent *piece, void *arg),
		     void *arg)
{
	unsigned int nr = nr_entries;

	for (unsigned int i = 0; i < nr; i++) {
		struct extent piece = table[i];

		if (piece.len && piece.arena == a - arenas && !each(&piece, arg))
			return false;
	}
	return true;
}

static bool stop(const struct extent *piece, void *arg)
{
	(void)piece;
	(void)arg;
	return false;
}

bool extents_meet(const void *addr, size_t len)
{
	return !extents_each(addr, len, stop, NULL);
}

static bool add_len(const struct extent *piece, void *arg)
{
	*(size_t *)arg += piece->len;
	return true;
}

bool extents_cover(const void *addr, size_t len)
{
	size_t sum = 0;

	extents_each(addr, len, add_len, &sum);
	return sum == len;
}

void extents_drop(const struct arena *a)
{
	for (unsigned int i = 0; i < nr_entries; i++)
		if (table[i].len && table[i].arena == a - arenas)
			table[i].len = 0;
}

bool extents_any(const struct arena *a)
{
	return !extents_each_of(a, stop, NULL);
}

static bool add_shared(const struct extent *piece, void *arg)
{
	if (extent_shared_over_fork(piece))
		*(size_t *)arg += piece->len;
	return true;
}

size_t extents_shared_over_fork(const struct arena *a)
{
	size_t sum = 0;

	extents_each_of(a, add_shared, &sum);
	return sum;
}
