/* SPDX-License-Identifier: MIT */
/*
 * arena.h - memory that can be shared with a server.
 *
 * One PROT_NONE reservation per process; arenas are sealed memfds mapped
 * MAP_SHARED inside it.  "Is this pointer ours?" is one subtract and one
 * compare, and false from the first instruction (size 0).  An arena is sparse: it
 * costs what was touched, and that is what a server registers of it.
 *
 * An arena is handed out in granules of 4 KiB (blocks.h).  All bookkeeping is in
 * private memory: the server can write to the arena, and must not be able to harm
 * us with it.
 *
 * A region is an arena that one mmap of the program got as a whole, at the
 * address the program or the kernel chose, outside the reservation.  It has
 * no granules.  All regions are ranges of one memfd (regions.c), so that a
 * process that maps much does not run out of descriptors.
 *
 * States: SHARED (in use), RETIRED (a fork made its memory private: blocks
 * in it live on, no new ones are made), EMPTY (slot unused).
 *
 * What changes arenas holds the lock of lock.h.
 */
#ifndef UBLKZC_PRELOAD_ARENA_H
#define UBLKZC_PRELOAD_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "memfile.h"

#define ARENA_GRANULE 4096UL
#define ARENA_ALIGN (2UL << 20)	    /* of arenas, and the most a block can ask for */
#define ARENA_SIZE_MAX (4ULL << 30) /* bytes: one registered buffer */
#define ARENA_RESERVE (64ULL << 30) /* bytes of address space, halved on failure */
#define ARENAS_MAX 256U

/* @to: a power of two. */
static inline size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

enum arena_state { ARENA_EMPTY, ARENA_SHARED, ARENA_RETIRED };

struct granule;

struct arena {
	_Atomic int state; /* enum arena_state */
	char *base;
	size_t len;		 /* bytes */
	size_t longest;		 /* of blocks: how long it can become, as its file is */
	bool growing;		 /* made so that it can */
	struct memfile file;	 /* a region's is its pool's */
	uint64_t offset;	 /* in the file */
	uint64_t id;		 /* no other arena ever had it; 0: none */
	uint8_t pool;		 /* a region's: which one, plus one */
	bool huge;		 /* a region of MAP_HUGETLB */
	long long born;		 /* a region: when it was made, milliseconds */
	atomic_size_t gone;	 /* a region: bytes unmapped since it was looked for */
	_Atomic bool pierced;	 /* a region of which something was unmapped or replaced */
	bool torn;		 /* a fork came in the middle of a change: only reading is safe */
	atomic_bool untold;	 /* more of it exists than servers were told of */
	uint32_t dirty;		 /* granules freed and not handed out again, about */
	_Atomic uint32_t purged; /* granules that went back, and were not handed out since, about */
	_Atomic bool taken_out;	 /* of a block: there is private memory in its place */
	atomic_size_t ahead_to;	 /* bytes; up to there it was populated (ahead.h) */
	struct granule *granules;  /* len / ARENA_GRANULE of them; NULL: a region */
	_Atomic uint64_t *altered; /* a bit per granule: mprotect and the like were here */
	uint32_t high;		   /* granules from here on were never used: zero */
	_Atomic uint32_t used;	   /* granules in blocks; also read without the lock */
};

/* Set once, base first; read by arena_owns() without a lock. */
extern char *_Atomic arena_base;
extern _Atomic size_t arena_reserved; /* 0: nothing is ours */

extern struct arena arenas[ARENAS_MAX];
extern _Atomic unsigned int arena_slots; /* slots from here on were never used */

static inline bool arena_owns(const void *p)
{
	size_t reserved = atomic_load_explicit(&arena_reserved, memory_order_acquire);

	/* As numbers: @p may be anything, also NULL. */
	return (uintptr_t)p - (uintptr_t)atomic_load_explicit(&arena_base, memory_order_relaxed) <
	       reserved;
}

/* Which arena is where in the reservation: slot + 1, 0: none. */
extern atomic_ushort arena_map[ARENA_RESERVE / ARENA_ALIGN];

/* The arena of blocks that @p is in; NULL if it is in none (a hole of the
 * reservation).  No lock. */
static inline struct arena *arena_of(const void *p)
{
	size_t offset =
		(size_t)((const char *)p - atomic_load_explicit(&arena_base, memory_order_relaxed));
	unsigned int slot;

	if (offset >= atomic_load_explicit(&arena_reserved, memory_order_acquire))
		return NULL;
	slot = atomic_load_explicit(&arena_map[offset / ARENA_ALIGN], memory_order_acquire);
	return slot ? &arenas[slot - 1] : NULL;
}

/* A new SHARED arena with room for @bytes; NULL when that cannot be had. */
struct arena *arena_new(size_t bytes);

/*
 * The same, but for what is going to grow: the file is longer than what is mapped of it, and
 * arena_extend() maps more behind it, when nothing else is there.  False: it stays as long as it
 * is.
 */
struct arena *arena_new_growing(size_t bytes);
bool arena_extend(struct arena *a, size_t len);

/* To servers it is another one from here on. */
void arena_renew(struct arena *a);

/* A slot for one; NULL: there is none.  It is filled with arena_publish(). */
struct arena *arena_empty_slot(void);
void arena_publish(struct arena *a);

/* May @len bytes more be captured (UBLKZC_MAX_MB)? */
bool arena_may_grow(size_t len);

/* Bytes of captured memory that exist, whoever touched them.  No lock: a number for people. */
size_t arena_resident(void);

/* Is this one of the files that captured memory lives in?  No lock. */
bool arena_file_is_ours(dev_t dev, ino_t ino);

/* The file of a mapping, and the arena it belongs to; NULL: none that is known. */
struct arena *arena_of_file(dev_t dev, ino_t ino, uint64_t offset);

/* What of arenas was never used is nothing but addresses. */
void arena_cut_all(void);

/* The same, and the address space that no arena uses is given back: it counts against
 * RLIMIT_AS, which the program is about to set. */
void arena_trim_all(void);

/* Give the memory and slot of an arena of blocks back; it must hold none. */
void arena_release(struct arena *a);

/* What a session needs to know of a slot, taken with the lock. */
struct arena_view {
	uint64_t id; /* 0: nothing to share */
	uint64_t offset;
	size_t len;
	size_t longest; /* what servers are told: what comes later is then theirs too */
	struct memfile file;
	bool part; /* of a longer file */
	bool huge;
};
void arena_view(unsigned int slot, struct arena_view *ret);

#endif
