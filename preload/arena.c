/* SPDX-License-Identifier: MIT */
/*
 * arena.c - the reservation and the memfds mapped into it.
 *
 * Whatever the system refuses (memfd_create under a seccomp filter, address
 * space, descriptors) means "no capture" and nothing else.
 */
#include "arena.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "blocks.h"
#include "config.h"
#include "marks.h"
#include "regions.h"
#include "stats.h"
#include "sys.h"
#include "vmas.h"

#define RESERVE_MIN (64UL << 20)
#define GROWING_FILE (1UL << 30) /* bytes, sparse: what a block may grow to where it is */

char *_Atomic arena_base;
_Atomic size_t arena_reserved;
struct arena arenas[ARENAS_MAX];
_Atomic unsigned int arena_slots;
atomic_ushort arena_map[ARENA_RESERVE / ARENA_ALIGN];
static uint64_t last_id;

static bool address_space_limited(void)
{
	struct rlimit64 limit = { 0 };

	sys_call(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&limit, 0, 0);
	return limit.rlim_cur != RLIM64_INFINITY;
}

/* Addresses that nothing else comes to lie in. */
static void map_nothing(char *at, size_t len)
{
	sys_mmap(at, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		 0);
}

static bool reserve(void)
{
	size_t size;

	if (arena_reserved)
		return true;
	/* Limited rarely; then we stay out of it. */
	if (address_space_limited())
		return false;
	for (size = ARENA_RESERVE; size >= RESERVE_MIN; size /= 2) {
		long map = sys_mmap(NULL, size + ARENA_ALIGN, PROT_NONE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (sys_is_error(map))
			continue;
		arena_base = (char *)round_up((size_t)map, ARENA_ALIGN);
		if (arena_base > (char *)map)
			sys_munmap((char *)map, (size_t)(arena_base - (char *)map));
		sys_munmap(arena_base + size, ARENA_ALIGN - (size_t)(arena_base - (char *)map));
		atomic_store_explicit(&arena_reserved, size, memory_order_release);
		return true;
	}
	return false;
}

static void cut(struct arena *a)
{
	size_t used = round_up(a->high * ARENA_GRANULE + 1, ARENA_ALIGN);

	if (used >= a->len)
		return;
	map_nothing(a->base + used, a->len - used);
	for (size_t at = used; at < a->len; at += ARENA_ALIGN)
		atomic_store_explicit(&arena_map[(size_t)(a->base + at - arena_base) / ARENA_ALIGN],
				      0, memory_order_release);
	a->len = used;
}

void arena_cut_all(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state == ARENA_SHARED && arenas[i].granules)
			cut(&arenas[i]);
}

/* First less is ours, then it is gone: so nobody's later mapping is taken for ours. */
static size_t reservation_used(void)
{
	size_t keep = 0;

	for (unsigned int i = 0; i < arena_slots; i++) {
		const struct arena *a = &arenas[i];

		if (a->state == ARENA_EMPTY || !a->granules)
			continue;
		if ((size_t)(a->base - arena_base) + a->len > keep)
			keep = (size_t)(a->base - arena_base) + a->len;
	}
	return keep;
}

static void trim_reservation(void)
{
	size_t reserved = arena_reserved;
	size_t keep = reservation_used();

	if (keep == reserved)
		return;
	atomic_store_explicit(&arena_reserved, keep, memory_order_release);
	sys_munmap(arena_base + keep, reserved - keep);
}

void arena_trim_all(void)
{
	arena_cut_all();
	trim_reservation();
}

static void map_arena(const struct arena *a, unsigned short slot)
{
	size_t first = (size_t)(a->base - arena_base) / ARENA_ALIGN;

	for (size_t i = 0; i < a->len / ARENA_ALIGN; i++)
		atomic_store_explicit(&arena_map[first + i], slot, memory_order_release);
}

static const struct arena *who_is_at(const char *at, size_t len)
{
	for (unsigned int i = 0; i < arena_slots; i++) {
		const struct arena *a = &arenas[i];

		if (a->state != ARENA_EMPTY && a->base < at + len && a->base + a->len > at)
			return a;
	}
	return NULL;
}

static bool is_reserved(const char *at, size_t len)
{
	return (size_t)(at - arena_base) + len <= arena_reserved;
}

/* The lowest place in the reservation where @len bytes are free. */
static char *find_room(size_t len)
{
	const struct arena *other;
	char *at = arena_base;

	while ((other = who_is_at(at, len)))
		at = other->base + other->len;
	return is_reserved(at, len) ? at : NULL;
}

bool arena_may_grow(size_t len)
{
	size_t sum = len;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY)
			sum += arenas[i].len;
	return !config.max_bytes || sum <= config.max_bytes;
}

/* A quarter of what is in blocks already, so that arenas stay few and what is
 * mapped stays near to what is used: servers of the older protocol populate it. */
static size_t next_size(size_t bytes)
{
	size_t used = 0;
	size_t size;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state == ARENA_SHARED && arenas[i].granules)
			used += arenas[i].used * ARENA_GRANULE;
	size = round_up(used / 4, ARENA_ALIGN);
	if (size < config.arena_first)
		size = round_up(config.arena_first, ARENA_ALIGN);
	if (size > ARENA_SIZE_MAX)
		size = ARENA_SIZE_MAX;
	if (size < bytes || !arena_may_grow(size))
		size = round_up(bytes, ARENA_ALIGN);
	return arena_may_grow(size) ? size : 0;
}

struct arena *arena_empty_slot(void)
{
	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		if (arenas[i].state == ARENA_EMPTY)
			return &arenas[i];
	return NULL;
}

void arena_renew(struct arena *a)
{
	a->id = ++last_id;
}

void arena_publish(struct arena *a)
{
	unsigned int slot = (unsigned int)(a - arenas);

	/* What was there before is replaced, and with it what was asked for it. */
	marks_clear_all(a->base, a->len);
	arena_renew(a);
	a->state = ARENA_SHARED;
	if (slot >= arena_slots)
		arena_slots = slot + 1;
	stat_add(STAT_ARENAS, 1);
}

size_t arena_resident(void)
{
	size_t sum = regions_resident();

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && arenas[i].granules)
			sum += memfile_resident(&arenas[i].file, 0);
	return sum;
}

bool arena_file_is_ours(dev_t dev, ino_t ino)
{
	for (unsigned int i = 0; i < ARENAS_MAX && i <= arena_slots; i++)
		if (arenas[i].file.ino == ino && arenas[i].file.dev == dev)
			return true;
	return regions_file_is_ours(dev, ino);
}

struct arena *arena_of_file(dev_t dev, ino_t ino, uint64_t offset)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].file.ino == ino && arenas[i].file.dev == dev &&
		    offset - arenas[i].offset < arenas[i].len)
			return &arenas[i];
	return NULL;
}

/* What is touched first is then a huge page, where the system lets shared memory have them
 * (shmem_enabled): it could only be made one as long as no I/O was in flight in it. */
static long map_file(const struct arena *a, char *at, size_t len, uint64_t offset)
{
	long map = sys_mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a->file.fd,
			    (off_t)offset);

	if (!sys_is_error(map))
		sys_madvise(at, len, MADV_HUGEPAGE);
	return map;
}

/* The file is known as ours before it is mapped: a fork may come in between. */
static bool fill(struct arena *a, char *at, size_t len, size_t longest)
{
	long map;

	*a = (struct arena){ .base = at, .len = len, .longest = longest, .growing = longest > len };
	if (memfile_make(&a->file, longest, 0) < 0)
		return false;
	map = blocks_make_granules(a) ? map_file(a, at, len, 0) : -1;
	if (!sys_is_error(map)) {
		arena_publish(a);
		vmas_keep_proc();
		map_arena(a, (unsigned short)(a - arenas + 1));
		return true;
	}
	memfile_close(&a->file);
	blocks_free_granules(a);
	return false;
}

static struct arena *new_arena(size_t bytes, size_t longest)
{
	struct arena *a = arena_empty_slot();
	size_t len;
	char *at;

	if (!a || !reserve())
		return NULL;
	len = next_size(bytes);
	at = len ? find_room(len) : NULL;
	return at && fill(a, at, len, longest > len ? longest : len) ? a : NULL;
}

struct arena *arena_new(size_t bytes)
{
	return new_arena(bytes, 0);
}

struct arena *arena_new_growing(size_t bytes)
{
	return new_arena(bytes, bytes > GROWING_FILE / 2 ? ARENA_SIZE_MAX : GROWING_FILE);
}

bool arena_extend(struct arena *a, size_t len)
{
	char *end = a->base + a->len;
	size_t more;
	long map;

	len = round_up(len, ARENA_ALIGN);
	if (a->state != ARENA_SHARED || len > a->longest || !memfile_valid(&a->file))
		return false;
	more = len - a->len;
	if (!is_reserved(end, more) || who_is_at(end, more) || !arena_may_grow(more))
		return false;
	map = sys_mmap(end, more, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a->file.fd,
		       (off_t)a->len);
	if (sys_is_error(map))
		return false;
	marks_clear_all(end, more);
	a->len = len;
	map_arena(a, (unsigned short)(a - arenas + 1));
	return true;
}

void arena_release(struct arena *a)
{
	map_arena(a, 0);
	map_nothing(a->base, a->len);
	marks_clear_all(a->base, a->len);
	blocks_free_granules(a);
	memfile_close(&a->file);
	*a = (struct arena){ .state = ARENA_EMPTY, .file.fd = -1 };
}

void arena_view(unsigned int slot, struct arena_view *ret)
{
	const struct arena *a = &arenas[slot];

	*ret = (struct arena_view){ 0 };
	if (a->state != ARENA_SHARED)
		return;
	*ret = (struct arena_view){ .id = a->id,
				    .offset = a->offset,
				    .len = a->len,
				    .longest = a->growing ? a->longest : a->len,
				    .file = a->file,
				    .part = !a->granules || a->growing,
				    .huge = a->huge };
}
