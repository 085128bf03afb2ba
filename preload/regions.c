/* SPDX-License-Identifier: MIT */
/* regions.c - see regions.h. */
#include "regions.h"

#include <errno.h>
#include <linux/memfd.h>
#include <sys/mman.h>

#include "blocks.h"
#include "brief.h"
#include "fork_steps.h"
#include "lock.h"
#include "marks.h"
#include "shim.h"
#include "sys.h"
#include "vmas.h"
#include "witness.h"

#define POOLS 4U /* ordinary pages, and sizes of huge ones */
/* Regions that are gone are given back when they are that much, or that many: to look at
 * all that is mapped takes longer than a munmap. */
#define GONE_BYTES (8UL << 20)
#define GONE_CALLS 16U
/* What no wrapper saw was not counted: so even if none seems to be gone. */
#define PARTS_MAX 16384U
#define WINDOW ARENA_SIZE_MAX		/* bytes of file offsets for each region */
#define POOL_SIZE (ARENAS_MAX * WINDOW) /* sparse */
#define ADDRESSES ((size_t)1 << 56)	/* bytes: all that a program can have mapped */

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
static atomic_uint gone_parts;

bool regions_touch(const void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;
	/* A length that leads past all addresses is an error, for the kernel to say. */
	uintptr_t end = len < UINTPTR_MAX - start ? start + len : UINTPTR_MAX;
	uintptr_t reserved = (uintptr_t)atomic_load_explicit(&arena_base, memory_order_relaxed);
	size_t size = atomic_load_explicit(&arena_reserved, memory_order_acquire);

	if (start < atomic_load_explicit(&highest, memory_order_relaxed) &&
	    end > atomic_load_explicit(&lowest, memory_order_relaxed))
		return true;
	return start < reserved + size && end > reserved;
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

/* The lowest window that no region has: low offsets cost the kernel less. */
static uint64_t find_window(const struct pool *pool)
{
	bool taken[ARENAS_MAX] = { false };
	uint64_t i = 0;

	for (unsigned int slot = 0; slot < arena_slots; slot++)
		if (arenas[slot].state != ARENA_EMPTY && arenas[slot].pool == pool - pools + 1)
			taken[arenas[slot].offset / WINDOW] = true;
	while (taken[i]) /* there are as many as slots, and one is free */
		i++;
	return i * WINDOW;
}

static void widen(const char *start, size_t len)
{
	if ((uintptr_t)start < lowest)
		lowest = (uintptr_t)start;
	if ((uintptr_t)start + len > highest)
		highest = (uintptr_t)start + len;
}

/* Windows of each pool whose memory goes back. */
struct returns {
	bool window[POOLS][ARENAS_MAX];
};

/* Its marks may be of what lies there now. */
static void release(struct arena *a, struct returns *r)
{
	r->window[a->pool - 1][a->offset / WINDOW] = true;
	*a = (struct arena){ .state = ARENA_EMPTY, .file.fd = -1 };
	blocks_news();
}

/* All of the window: a call that no wrapper saw may have made a mapping longer.  Neighbours
 * together: that is what most of a short mapping's life costs. */
static void give_back(const struct returns *r)
{
	for (unsigned int p = 0; p < POOLS; p++)
		for (uint64_t i = 0, nr; i < ARENAS_MAX; i += nr) {
			nr = 0;
			while (i + nr < ARENAS_MAX && r->window[p][i + nr])
				nr++;
			if (nr)
				memfile_punch(&pools[p].file, i * WINDOW, nr * WINDOW);
			nr += !nr;
		}
}

/* Which slots' memory is still mapped somewhere: also where a call that no wrapper saw
 * has moved it. */
static bool note_alive(const struct vma *v, void *arg)
{
	bool *alive = arg;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].file.ino == v->ino && arenas[i].file.dev == v->dev &&
		    v->offset < arenas[i].offset + WINDOW && v->offset + v->len > arenas[i].offset)
			alive[i] = true;
	return true;
}

/* Then it is mapped private. */
static bool any_retired(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state == ARENA_RETIRED && arenas[i].pool)
			return true;
	return false;
}

/* All at once, because the kernel is asked for all that is mapped. */
void regions_look(void)
{
	bool alive[ARENAS_MAX] = { false };
	struct returns returns = { 0 };

	atomic_store(&gone_bytes, 0);
	atomic_store(&gone_calls, 0);
	atomic_store(&gone_parts, 0);
	if (any_retired() ? !vmas_can_ask() || vmas_each(NULL, ADDRESSES, note_alive, alive) < 0
			  : vmas_each_shared(note_alive, alive) < 0)
		return;
	/* A child may have inherited a retired one copy-on-write, and still need it. */
	fork_tidy_private();
	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];

		if (a->state == ARENA_EMPTY || !a->pool)
			continue;
		if (alive[i] || (a->state != ARENA_SHARED && witness_active()))
			a->gone = 0;
		else
			release(a, &returns);
	}
	give_back(&returns);
}

static bool due(void)
{
	return atomic_load_explicit(&gone_bytes, memory_order_relaxed) >= GONE_BYTES ||
	       atomic_load_explicit(&gone_calls, memory_order_relaxed) >= GONE_CALLS ||
	       atomic_load_explicit(&gone_parts, memory_order_relaxed) >= PARTS_MAX;
}

/* Perhaps only once what is gone is given up. */
static bool room_for(size_t len)
{
	if (arena_empty_slot() && arena_may_grow(len))
		return true;
	if (atomic_load(&gone_calls) || atomic_load(&gone_parts))
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

	if (!pool || !a || wish->len > WINDOW)
		return NULL;
	offset = find_window(pool);
	map = sys_mmap(wish->addr, wish->len, wish->prot, MAP_SHARED | (wish->flags & KEPT_FLAGS),
		       pool->file.fd, (off_t)offset);
	if (sys_is_error(map))
		return NULL;
	*a = (struct arena){ .base = (char *)map,
			     .len = wish->len,
			     .file = pool->file,
			     .offset = offset,
			     .pool = (uint8_t)(pool - pools + 1),
			     .huge = huge,
			     .born = sys_now_ms() };
	arena_publish(a);
	widen(a->base, a->len);
	blocks_news();
	if (wish->flags & MAP_LOCKED)
		marks_set(MARK_LOCKED, a->base, a->len);
	return a;
}

/* The part of @a in [@start, @start + @len) is gone: all that there was? */
static bool note_gone(struct arena *a, const char *start, size_t len)
{
	const char *from = start > a->base ? start : a->base;
	const char *to = start + len < a->base + a->len ? start + len : a->base + a->len;
	size_t part = (size_t)(to - from);

	if (part == a->len && !a->pierced)
		brief_note(a->len, sys_now_ms() - a->born);
	a->pierced = true;
	return atomic_fetch_add(&a->gone, part) + part >= a->len;
}

void regions_gone(const void *addr, size_t len)
{
	const char *start = addr;
	bool huge = false, any = false;
	size_t whole = 0;

	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];

		if (a->state == ARENA_EMPTY || !a->pool || a->base >= start + len ||
		    a->base + a->len <= start)
			continue;
		any = true;
		/* One that went before may have lain in the same place. */
		if (atomic_load(&a->gone) >= a->len)
			continue;
		huge = huge || a->huge;
		if (note_gone(a, start, len))
			whole += a->len;
	}
	if (!any)
		return;
	/* Huge pages are few, and the program may want them again at once. */
	atomic_fetch_add(&gone_bytes, huge ? GONE_BYTES : whole);
	atomic_fetch_add(whole ? &gone_calls : &gone_parts, 1);
	if (due() && blocks_lock())
		blocks_unlock();
}

void regions_tidy(void)
{
	if (due())
		regions_look();
}

/* ---- growing and moving ---- */

/* The region that all of @v belongs to, unless a fork has made it private. */
static struct arena *region_of(const struct vma *v)
{
	struct arena *a = v->shared ? arena_of_file(v->dev, v->ino, v->offset) : NULL;

	return a && a->pool && a->state == ARENA_SHARED ? a : NULL;
}

static bool at_end(const struct arena *a, const struct vma *v)
{
	return v->offset + v->len == a->offset + a->len;
}

struct rest {
	const struct arena *a;
	uint64_t offset; /* of the window, from here on */
	bool mapped;
};

static bool look_for(const struct vma *v, void *arg)
{
	struct rest *r = arg;

	r->mapped =
		r->mapped || (v->ino == r->a->file.ino && v->dev == r->a->file.dev &&
			      v->offset < r->a->offset + WINDOW && v->offset + v->len > r->offset);
	return !r->mapped;
}

/* What is behind @offset in the window of @a is zero from here on.  False: a call that no
 * wrapper saw has mapped it. */
static bool clear_rest(const struct arena *a, uint64_t offset)
{
	struct rest r = { a, offset, false };

	return vmas_each_shared(look_for, &r) == 0 && !r.mapped &&
	       memfile_punch(&a->file, offset, a->offset + WINDOW - offset);
}

/* A piece that was the end of its region is gone. */
static void cut_end(struct arena *a, size_t len)
{
	if (!clear_rest(a, a->offset + a->len - len))
		return;
	a->len -= len;
	arena_renew(a);
	blocks_news();
}

bool regions_grow(const struct vma *v, size_t len)
{
	struct arena *a = region_of(v);

	/* What has become too small to be captured grows as ordinary memory. */
	if (!a || a->huge || v->len < shim.mmap_min || !at_end(a, v) ||
	    a->len + (len - v->len) > WINDOW || !arena_may_grow(len - v->len) ||
	    !clear_rest(a, v->offset + v->len))
		return false;
	a->len += len - v->len;
	arena_renew(a);
	blocks_news();
	return true;
}

void regions_did_not_grow(const struct vma *v, size_t len)
{
	struct arena *a = region_of(v);

	if (a && v->offset + len == a->offset + a->len)
		a->len -= len - v->len;
}

void regions_moved(const struct vma *v, void *to, size_t len)
{
	struct arena *a = region_of(v);

	widen(to, len);
	if (a && len < v->len && at_end(a, v))
		cut_end(a, v->len - len);
	if (a && v->offset == a->offset)
		a->base = to;
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
