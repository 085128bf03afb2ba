/* SPDX-License-Identifier: MIT */
/*
 * extents.h - which addresses are mapped from which arena, and how.
 *
 * An arena begins as one extent.  What the program then does to a part of it
 * (munmap, mprotect, madvise for fork) splits extents, as it splits mappings in
 * the kernel; neighbours that are alike again are joined.  An arena of blocks
 * keeps all its addresses, a region (arena.h) loses those the program unmaps.
 *
 * Everything but extents_touch() is called with the lock of blocks.c held.
 */
#ifndef UBLKZC_PRELOAD_EXTENTS_H
#define UBLKZC_PRELOAD_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"

/* The function compares the address that is its first argument, and reads nothing there:
 * glibc says so of mlock(), and a compiler that believes it warns of what we call. */
#if defined(__has_attribute) && __has_attribute(access)
#define ADDRESS_ONLY __attribute__((access(none, 1)))
#else
#define ADDRESS_ONLY
#endif

/* Split further, and munmap or mprotect of a part fails with ENOMEM, as it does
 * in the kernel at vm.max_map_count. */
#define EXTENTS_MAX 2048U

struct extent {
	char *start;
	size_t len;	/* bytes; 0: the entry is unused */
	uint16_t arena; /* slot */
	uint8_t prot;	/* PROT_* */
	bool dontfork;	/* MADV_DONTFORK: a child does not have it */
	bool wipe;	/* MADV_WIPEONFORK: a child has it as zeroes */
	bool locked;	/* mlock */
	bool own;	/* mapped MAP_PRIVATE since a fork: no server sees it */
};

/* What extents_change() sets. */
enum extent_change {
	EXTENT_PROT,
	EXTENT_DONTFORK,
	EXTENT_WIPE,
	EXTENT_LOCKED,
	EXTENT_OWN,
};

/* Must a fork be repaired for it? */
static inline bool extent_shared_over_fork(const struct extent *e)
{
	return !e->dontfork && !e->wipe && !e->own;
}

/* Does the range meet captured memory?  No lock; exact for memory that the
 * caller may rightly name. */
ADDRESS_ONLY bool extents_touch(const void *addr, size_t len);

/* All of @a is mapped, with @prot.  -ENOMEM. */
int extents_add(const struct arena *a, int prot);

/* Will any one change or cut of any range find room?  Joins what is alike. */
bool extents_room(void);

/* Forget what lies in the range.  Room must be there. */
void extents_cut(const void *addr, size_t len);

/* Set an attribute of what lies in the range.  Room must be there. */
void extents_change(const void *addr, size_t len, enum extent_change what, int value);

/* Was anything ever changed?  If not, extents_restore() has nothing to do. */
extern atomic_bool extents_odd;

/* The range is to be used anew: readable, writable, inherited by children.
 * False: there was no room to note it, so it must not be used. */
bool extents_restore(void *addr, size_t len);

/* Is any, or all, of the range captured memory? */
bool extents_meet(const void *addr, size_t len);
bool extents_cover(const void *addr, size_t len);

/*
 * Call @each for what lies in the range, clipped to it.  It may cut or change
 * what it was called for, nothing else.  False from @each ends it, and is
 * returned.
 */
bool extents_each(const void *addr, size_t len, bool (*each)(const struct extent *piece, void *arg),
		  void *arg);

/* The same for all that is mapped from @a. */
bool extents_each_of(const struct arena *a, bool (*each)(const struct extent *piece, void *arg),
		     void *arg);

/* Forget all of @a. */
void extents_drop(const struct arena *a);

/* Is anything mapped from @a? */
bool extents_any(const struct arena *a);

/* Bytes mapped from @a for which a fork must be repaired. */
size_t extents_shared_over_fork(const struct arena *a);

#endif
