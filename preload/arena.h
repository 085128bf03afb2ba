/* SPDX-License-Identifier: MIT */
/*
 * arena.h - memory that can be shared with a server.
 *
 * One PROT_NONE reservation per process; arenas are sealed memfds mapped
 * MAP_SHARED inside it.  "Is this pointer ours?" is one subtract and one
 * compare, and false from the first instruction (size 0).
 *
 * An arena is handed out in granules of 4 KiB, so that no two blocks share a
 * page.  All bookkeeping is in private memory: the server can write to the
 * arena, and must not be able to harm us with it.
 *
 * A region is an arena that one mmap of the program got as a whole, at the
 * address the program or the kernel chose, outside the reservation.  It has
 * no granules; extents.h knows what of it is still mapped.
 *
 * States: SHARED (in use), RETIRED (a fork made its memory private: blocks
 * in it live on, no new ones are made), EMPTY (slot unused).
 *
 * Everything but arena_owns() is called with the lock of blocks.c held, or
 * while there is one thread only.
 */
#ifndef UBLKZC_PRELOAD_ARENA_H
#define UBLKZC_PRELOAD_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ARENA_GRANULE 4096UL
#define ARENA_ALIGN (2UL << 20)	      /* of arenas, and the most a block can ask for */
#define ARENA_SIZE_MAX (4ULL << 30)   /* bytes: one registered buffer */
#define ARENA_GROWTH_MAX (1ULL << 30) /* bytes: arenas double up to this */
#define ARENA_RESERVE (64ULL << 30)   /* bytes of address space, halved on failure */
#define ARENAS_MAX 256U

enum arena_state { ARENA_EMPTY, ARENA_SHARED, ARENA_RETIRED };

/* Per granule; valid in the first and the last granule of a run. */
struct granule {
	uint32_t len;  /* of the run, in granules */
	uint32_t next; /* free runs: in their bin, granule index + 1, 0: none */
	uint32_t prev;
	_Atomic uint8_t state; /* enum granule_state of blocks.c */
};

struct arena {
	enum arena_state state;
	char *base;
	size_t len; /* bytes */
	int fd;	    /* memfd, -1: closed */
	dev_t dev;  /* of the memfd, to recognise fd */
	ino_t ino;
	bool prepared;		  /* populated and collapsed */
	bool huge;		  /* a region of MAP_HUGETLB */
	struct granule *granules; /* len / ARENA_GRANULE of them; NULL: a region */
	uint32_t high;		  /* granules from here on were never used: zero */
	uint32_t used;		  /* granules in blocks */
};

/* Set once, base first; read by arena_owns() without a lock. */
extern char *_Atomic arena_base;
extern _Atomic size_t arena_reserved; /* 0: nothing is ours */

extern struct arena arenas[ARENAS_MAX];
extern unsigned int arena_slots; /* slots from here on were never used */

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

/* What a program asks of mmap; @flags with MAP_PRIVATE|MAP_ANONYMOUS. */
struct arena_wish {
	void *addr;
	size_t len; /* bytes, whole pages (huge ones with MAP_HUGETLB) */
	int prot;
	int flags;
};

/* A new SHARED region mapped as wished; NULL when that cannot be had. */
struct arena *arena_new_region(const struct arena_wish *wish);

/* Populate it and gather it into huge pages.  0 or a negative errno. */
int arena_prepare(struct arena *a);

/* The same without the lock: @a is a copy, @fd a duplicate of its descriptor. */
int arena_prepare_copy(const struct arena *a, int fd);

/* Give back the address space that no arena uses: it counts against RLIMIT_AS,
 * which the program is about to set. */
void arena_trim_reservation(void);

/* Does a region, or do blocks, live in it? */
bool arena_in_use(const struct arena *a);

/* Give its memory and slot back; it must not be in use. */
void arena_release(struct arena *a);

/* Does fd still name the memfd? */
bool arena_fd_valid(const struct arena *a);

#endif
