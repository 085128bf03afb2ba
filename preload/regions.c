/* SPDX-License-Identifier: MIT */
/* regions.c - see regions.h. */
#include "regions.h"

#include <errno.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>

#include "blocks.h"
#include "fork_steps.h"
#include "lock.h"
#include "marks.h"
#include "sys.h"
#include "vmas.h"
#include "witness.h"

#define POOLS 4U /* ordinary pages, and sizes of huge ones */
/* What is unmapped is given back when it is that much, or was so many calls: to look at
 * all that is mapped takes longer than a munmap. */
#define GONE_BYTES (8UL << 20)
#define GONE_CALLS 16U
#define POOL_SIZE (1ULL << 40)	    /* bytes of file offsets; sparse */
#define ADDRESSES ((size_t)1 << 56) /* bytes: all that a program can have mapped */

/* The size of a huge page is in the same bits for mmap and memfd_create. */
#define HUGE_SIZE_BITS ((unsigned int)MAP_HUGE_MASK << MAP_HUGE_SHIFT)
/* The flags that mean the same to a shared mapping of a memfd. */
#define KEPT_FLAGS (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_POPULATE | MAP_LOCKED | MAP_HUGETLB)

static struct pool {
	struct memfile file;
	unsigned int huge; /* flags of memfd_create */
	bool made;
} pools[POOLS];

/* Where regions are.  Only ever widened. */
static _Atomic uintptr_t lowest = UINTPTR_MAX;
static _Atomic uintptr_t highest;
static atomic_size_t gone_bytes; /* since all that is mapped was looked at */
static atomic_uint gone_calls;

bool regions_touch(const void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;
	uintptr_t reserved = (uintptr_t)atomic_load_explicit(&arena_base, memory_order_relaxed);
	size_t size = atomic_load_explicit(&arena_reserved, memory_order_acquire);

	if (start < atomic_load_explicit(&highest, memory_order_relaxed) &&
	    start + len > atomic_load_explicit(&lowest, memory_order_relaxed))
		return true;
	return start < reserved + size && start + len > reserved;
}

bool regions_file_is_ours(dev_t dev, ino_t ino)
{
	for (unsigned int i = 0; i < POOLS; i++)
		if (pools[i].made && pools[i].file.ino == ino && pools[i].file.dev == dev)
			return true;
	return false;
}

size_t regions_resident(void)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < POOLS; i++)
		if (pools[i].made)
			sum += memfile_resident(&pools[i].file, 0);
	return sum;
}

static bool pool_in_use(const struct pool *pool)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && arenas[i].pool == pool - pools + 1)
			return true;
	return false;
}

/* The program has closed the descriptor: a new file, when the old one is not needed. */
static bool usable(struct pool *pool)
{
	if (memfile_valid(&pool->file))
		return true;
	if (pool_in_use(pool))
		return false;
	pool->made = false;
	return memfile_make(&pool->file, POOL_SIZE, pool->huge) == 0 && (pool->made = true);
}

static struct pool *find_pool(unsigned int huge)
{
	for (unsigned int i = 0; i < POOLS; i++) {
		struct pool *pool = &pools[i];

		if (pool->made && pool->huge == huge)
			return usable(pool) ? pool : NULL;
		if (pool->made)
			continue;
		pool->huge = huge;
		pool->file.fd = -1;
		return usable(pool) ? pool : NULL;
	}
	return NULL;
}

/* The lowest offset with @len bytes in no region; huge pages fit in as they come. */
static uint64_t find_offset(const struct pool *pool, size_t len)
{
	uint64_t align = len >= ARENA_ALIGN ? ARENA_ALIGN : ARENA_GRANULE;
	uint64_t at = 0;
	bool moved = true;

	while (moved) {
		moved = false;
		for (unsigned int i = 0; i < arena_slots; i++) {
			const struct arena *a = &arenas[i];

			if (a->state == ARENA_EMPTY || a->pool != pool - pools + 1 ||
			    a->offset >= at + len || a->offset + a->len <= at)
				continue;
			at = (a->offset + a->len + align - 1) & ~(align - 1);
			moved = true;
		}
	}
	return at;
}

static void widen(const struct arena *a)
{
	if ((uintptr_t)a->base < lowest)
		lowest = (uintptr_t)a->base;
	if ((uintptr_t)a->base + a->len > highest)
		highest = (uintptr_t)a->base + a->len;
}

/* Memory of neighbours in the file is given back at once. */
static void punch_with_neighbours(const struct arena *a, bool *dead)
{
	uint64_t start = a->offset, end = a->offset + a->len;
	bool more = true;

	while (more) {
		more = false;
		for (unsigned int i = 0; i < arena_slots; i++) {
			const struct arena *n = &arenas[i];

			if (!dead[i] || n->pool != a->pool ||
			    (n->offset != end && n->offset + n->len != start))
				continue;
			start = n->offset < start ? n->offset : start;
			end = n->offset + n->len > end ? n->offset + n->len : end;
			dead[i] = false;
			more = true;
		}
	}
	memfile_punch(&a->file, start, end - start);
}

static void release_all(const bool *which)
{
	bool dead[ARENAS_MAX];

	memcpy(dead, which, sizeof(dead));
	for (unsigned int i = 0; i < arena_slots; i++)
		if (dead[i]) {
			dead[i] = false;
			punch_with_neighbours(&arenas[i], dead);
		}
	for (unsigned int i = 0; i < arena_slots; i++)
		if (which[i]) /* its marks may be of what lies there now */
			arenas[i] = (struct arena){ .state = ARENA_EMPTY, .file.fd = -1 };
	blocks_news();
}

/* Which slots' memory is still mapped somewhere: also where a call that no wrapper saw
 * has moved it. */
static bool note_alive(const struct vma *v, void *arg)
{
	bool *alive = arg;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].file.ino == v->ino && arenas[i].file.dev == v->dev &&
		    v->offset < arenas[i].offset + arenas[i].len &&
		    v->offset + v->len > arenas[i].offset)
			alive[i] = true;
	return true;
}

/* All at once, because the kernel is asked for all that is mapped. */
void regions_look(void)
{
	bool alive[ARENAS_MAX] = { false };
	bool dead[ARENAS_MAX] = { false };
	bool any = false;

	atomic_store(&gone_bytes, 0);
	atomic_store(&gone_calls, 0);
	if (!vmas_can_ask() || vmas_each(NULL, ADDRESSES, note_alive, alive) < 0)
		return;
	/* A child may have inherited a retired one copy-on-write, and still need it. */
	fork_tidy_private();
	for (unsigned int i = 0; i < arena_slots; i++) {
		const struct arena *a = &arenas[i];

		dead[i] = a->state != ARENA_EMPTY && a->pool && !alive[i] &&
			  (a->state == ARENA_SHARED || !witness_active());
		any = any || dead[i];
	}
	if (any)
		release_all(dead);
}

static bool due(void)
{
	return atomic_load_explicit(&gone_bytes, memory_order_relaxed) >= GONE_BYTES ||
	       atomic_load_explicit(&gone_calls, memory_order_relaxed) >= GONE_CALLS;
}

/* Perhaps only once what is gone is given up. */
static bool room_for(size_t len)
{
	if (arena_empty_slot() && arena_may_grow(len))
		return true;
	if (atomic_load(&gone_calls))
		regions_look();
	return arena_empty_slot() && arena_may_grow(len);
}

struct arena *region_new(const struct region_wish *wish)
{
	unsigned int huge = wish->flags & MAP_HUGETLB
				    ? MFD_HUGETLB | ((unsigned int)wish->flags & HUGE_SIZE_BITS)
				    : 0;
	/* Without /proc nobody could tell what becomes of it. */
	struct pool *pool = vmas_keep_proc() && room_for(wish->len) ? find_pool(huge) : NULL;
	struct arena *a = arena_empty_slot();
	uint64_t offset;
	long map;

	if (!pool)
		return NULL;
	offset = find_offset(pool, wish->len);
	if (offset + wish->len > POOL_SIZE)
		return NULL;
	map = sys_mmap(wish->addr, wish->len, wish->prot, MAP_SHARED | (wish->flags & KEPT_FLAGS),
		       pool->file.fd, (off_t)offset);
	if (sys_is_error(map))
		return NULL;
	*a = (struct arena){ .base = (char *)map,
			     .len = wish->len,
			     .file = pool->file,
			     .offset = offset,
			     .pool = (uint8_t)(pool - pools + 1),
			     .huge = huge };
	arena_publish(a);
	widen(a);
	blocks_news();
	if (wish->flags & MAP_LOCKED)
		marks_set(MARK_LOCKED, a->base, a->len);
	return a;
}

void regions_gone(const void *addr, size_t len)
{
	const char *start = addr;
	bool huge = false, any = false;

	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];

		if (a->state == ARENA_EMPTY || !a->pool || a->base >= start + len ||
		    a->base + a->len <= start)
			continue;
		a->pierced = any = true;
		huge = huge || a->huge;
	}
	if (!any)
		return;
	/* Huge pages are few, and the program may want them again at once. */
	atomic_fetch_add(&gone_bytes, huge ? GONE_BYTES : len);
	atomic_fetch_add(&gone_calls, 1);
	if (due() && blocks_lock())
		blocks_unlock();
}

void regions_tidy(void)
{
	if (due())
		regions_look();
}

void regions_moved(const void *from, void *to, size_t len)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && arenas[i].pool && arenas[i].base == from &&
		    arenas[i].len == len) {
			arenas[i].base = to;
			widen(&arenas[i]);
		}
}

void regions_forget(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && !arenas[i].granules)
			arenas[i] = (struct arena){ .state = ARENA_EMPTY, .file.fd = -1 };
	for (unsigned int i = 0; i < POOLS; i++) {
		memfile_close(&pools[i].file);
		pools[i].made = false;
	}
	/* What is mapped there is nobody's affair any more. */
	highest = 0;
	lowest = UINTPTR_MAX;
}
