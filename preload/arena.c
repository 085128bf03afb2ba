/* SPDX-License-Identifier: MIT */
/*
 * arena.c - the reservation and the memfds mapped into it.
 *
 * Whatever the system refuses (memfd_create under a seccomp filter, address
 * space, descriptors) means "no capture" and nothing else.
 */
#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "common/log.h"
#include "config.h"
#include "extents.h"
#include "stats.h"
#include "sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

#define COLLAPSE_TRIES 3
#define RESERVE_MIN (64UL << 20)

char *_Atomic arena_base;
_Atomic size_t arena_reserved;
struct arena arenas[ARENAS_MAX];
unsigned int arena_slots;
atomic_ushort arena_map[ARENA_RESERVE / ARENA_ALIGN];
static unsigned int nr_made; /* for the next arena's name */

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static bool limited(int resource)
{
	struct rlimit64 limit = { 0 };

	sys_call(SYS_prlimit64, 0, resource, 0, (long)&limit, 0, 0);
	return limit.rlim_cur != RLIM64_INFINITY;
}

static bool reserve(void)
{
	size_t size;

	if (arena_reserved)
		return true;
	/* Limited rarely; then we stay out of it. */
	if (limited(RLIMIT_AS))
		return false;
	for (size = ARENA_RESERVE; size >= RESERVE_MIN; size /= 2) {
		long map = sys_mmap(NULL, size + ARENA_ALIGN, PROT_NONE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (sys_is_error(map))
			continue;
		arena_base = (char *)round_up((size_t)map, ARENA_ALIGN);
		atomic_store_explicit(&arena_reserved, size, memory_order_release);
		return true;
	}
	return false;
}

void arena_trim_reservation(void)
{
	size_t keep = 0;

	for (unsigned int i = 0; i < arena_slots; i++) {
		const struct arena *a = &arenas[i];

		if (a->state == ARENA_EMPTY || !a->granules)
			continue;
		if ((size_t)(a->base - arena_base) + a->len > keep)
			keep = (size_t)(a->base - arena_base) + a->len;
	}
	if (keep == arena_reserved)
		return;
	sys_munmap(arena_base + keep, arena_reserved - keep);
	atomic_store_explicit(&arena_reserved, keep, memory_order_release);
}

static void map_arena(const struct arena *a, unsigned short slot)
{
	size_t first = (size_t)(a->base - arena_base) / ARENA_ALIGN;

	for (size_t i = 0; i < a->len / ARENA_ALIGN; i++)
		atomic_store_explicit(&arena_map[first + i], slot, memory_order_release);
}

/* The lowest place in the reservation where @len bytes are free. */
static char *find_room(size_t len)
{
	char *at = arena_base;
	bool moved = true;

	while (moved) {
		moved = false;
		for (unsigned int i = 0; i < arena_slots; i++) {
			const struct arena *a = &arenas[i];

			if (a->state == ARENA_EMPTY || a->base >= at + len ||
			    a->base + a->len <= at)
				continue;
			at = a->base + a->len;
			moved = true;
		}
	}
	return (size_t)(at - arena_base) + len <= arena_reserved ? at : NULL;
}

static size_t bytes_in_arenas(void)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY)
			sum += arenas[i].len;
	return sum;
}

/* Double from arena to arena, so that they stay few; those that a fork has
 * retired do not count, or each fork would double the next. */
static size_t next_size(size_t bytes)
{
	uint64_t size = config.arena_first;

	for (unsigned int i = 0; i < arena_slots && size < ARENA_GROWTH_MAX; i++)
		if (arenas[i].state == ARENA_SHARED && arenas[i].granules)
			size *= 2;
	size = round_up(size, ARENA_ALIGN);
	if (size < bytes)
		size = round_up(bytes, ARENA_ALIGN);
	if (config.max_bytes && bytes_in_arenas() + size > config.max_bytes)
		size = round_up(bytes, ARENA_ALIGN);
	if (config.max_bytes && bytes_in_arenas() + size > config.max_bytes)
		return 0;
	return size;
}

/* @huge: flags of memfd_create for huge pages, or 0. */
static int make_memfd(size_t len, unsigned int huge)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | huge;
	char name[48];
	long fd;
	long ret;

	/* Growing the memfd past it would raise SIGXFSZ. */
	if (limited(RLIMIT_FSIZE))
		return -EFBIG;
	log_format(name, sizeof(name), "ublkzc:%d:%u", (int)sys_getpid(), nr_made);
	fd = sys_call(SYS_memfd_create, (long)name, flags | MFD_NOEXEC_SEAL, 0, 0, 0, 0);
	if (fd == -EINVAL)
		fd = sys_call(SYS_memfd_create, (long)name, flags, 0, 0, 0, 0);
	if (fd < 0)
		return (int)fd;
	fd = sys_move_fd_high((int)fd);
	ret = sys_call(SYS_ftruncate, fd, (long)len, 0, 0, 0, 0);
	if (ret == 0)
		ret = sys_call(SYS_fcntl, fd, F_ADD_SEALS,
			       F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, 0, 0, 0);
	if (ret < 0) {
		sys_close((int)fd);
		return (int)ret;
	}
	return (int)fd;
}

static struct granule *make_granules(size_t len)
{
	long map =
		sys_mmap(NULL, len / ARENA_GRANULE * sizeof(struct granule), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return sys_is_error(map) ? NULL : (struct granule *)map;
}

static struct arena *empty_slot(void)
{
	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		if (arenas[i].state == ARENA_EMPTY)
			return &arenas[i];
	return NULL;
}

/* The memfd is mapped: the arena is there, if its bookkeeping has room. */
static bool complete(struct arena *a, int prot)
{
	struct stat st;

	if (sys_fstat(a->fd, &st) < 0)
		return false;
	/* What was mapped there before is replaced, captured or not. */
	if (!a->granules)
		extents_cut(a->base, a->len);
	if (extents_add(a, prot) < 0)
		return false;
	a->dev = st.st_dev;
	a->ino = st.st_ino;
	a->state = ARENA_SHARED;
	if (a >= &arenas[arena_slots])
		arena_slots = (unsigned int)(a - arenas) + 1;
	if (a->granules)
		map_arena(a, (unsigned short)(a - arenas + 1));
	nr_made++;
	stat_add(STAT_ARENAS, 1);
	return true;
}

static bool fill(struct arena *a, char *at, size_t len)
{
	long map;

	*a = (struct arena){ .base = at, .len = len, .fd = make_memfd(len, 0) };
	if (a->fd < 0)
		return false;
	a->granules = make_granules(len);
	map = a->granules
		      ? sys_mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a->fd, 0)
		      : -ENOMEM;
	if (sys_is_error(map) || !complete(a, PROT_READ | PROT_WRITE)) {
		sys_close(a->fd);
		if (a->granules)
			sys_munmap(a->granules, len / ARENA_GRANULE * sizeof(struct granule));
		/* A shared mapping that came about must not stay behind. */
		sys_mmap(at, len, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		return false;
	}
	return true;
}

struct arena *arena_new(size_t bytes)
{
	struct arena *a = empty_slot();
	size_t len;
	char *at;

	if (!a || !reserve())
		return NULL;
	len = next_size(bytes);
	at = len ? find_room(len) : NULL;
	return at && fill(a, at, len) ? a : NULL;
}

/* The flags that mean the same to a shared mapping of a memfd. */
#define KEPT_FLAGS (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_POPULATE | MAP_LOCKED | MAP_HUGETLB)
/* The size of a huge page is in the same bits for mmap and memfd_create. */
#define HUGE_SIZE_BITS ((unsigned int)MAP_HUGE_MASK << MAP_HUGE_SHIFT)

struct arena *arena_new_region(const struct arena_wish *wish)
{
	unsigned int huge = wish->flags & MAP_HUGETLB
				    ? MFD_HUGETLB | ((unsigned int)wish->flags & HUGE_SIZE_BITS)
				    : 0;
	struct arena *a = empty_slot();
	long map;

	if (!a || (config.max_bytes && bytes_in_arenas() + wish->len > config.max_bytes))
		return NULL;
	*a = (struct arena){ .len = wish->len, .huge = huge, .fd = make_memfd(wish->len, huge) };
	if (a->fd < 0)
		return NULL;
	map = sys_mmap(wish->addr, wish->len, wish->prot, MAP_SHARED | (wish->flags & KEPT_FLAGS),
		       a->fd, 0);
	a->base = (char *)map;
	if (!sys_is_error(map) && complete(a, wish->prot))
		return a;
	if (!sys_is_error(map))
		sys_munmap((void *)map, wish->len);
	sys_close(a->fd);
	return NULL;
}

/* Whatever the kernel says to it: huge pages are a gain, not a condition. */
static void collapse(char *base, size_t len)
{
	int ret = 0;

	for (size_t at = 0; at + ARENA_ALIGN <= len; at += ARENA_ALIGN) {
		for (int i = 0; i < COLLAPSE_TRIES; i++) {
			ret = sys_madvise(base + at, ARENA_ALIGN, MADV_COLLAPSE);
			if (ret != -EAGAIN)
				break;
		}
		if (ret == -EINVAL)
			break; /* this kernel cannot */
	}
}

int arena_prepare(struct arena *a)
{
	int ret;

	if (a->prepared)
		return 0;
	/* The program may have unmapped or protected a part of a region. */
	if (a->granules) {
		ret = sys_madvise(a->base, a->len, MADV_POPULATE_WRITE);
		if (!ret)
			collapse(a->base, a->len);
	} else {
		ret = arena_prepare_copy(a, a->fd);
	}
	a->prepared = ret == 0;
	return ret;
}

int arena_prepare_copy(const struct arena *a, int fd)
{
	/* Aligned, so that whole huge pages can come about. */
	size_t room = a->len + (a->huge ? 0 : ARENA_ALIGN);
	long map = sys_mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *at = (char *)map;
	long ret = 0;

	if (sys_is_error(map))
		return (int)map;
	if (!a->huge) {
		at = (char *)round_up((size_t)map, ARENA_ALIGN);
		ret = sys_mmap(at, a->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	}
	if (!sys_is_error(ret))
		ret = sys_madvise(at, a->len, MADV_POPULATE_WRITE);
	if (!ret && !a->huge)
		collapse(at, a->len);
	sys_munmap((void *)map, room);
	/* Its own page tables too, where all of it is ours. */
	if (!ret && a->granules)
		sys_madvise(a->base, a->len, MADV_POPULATE_WRITE);
	return (int)ret;
}

bool arena_in_use(const struct arena *a)
{
	return a->granules ? a->used != 0 : extents_any(a);
}

bool arena_fd_valid(const struct arena *a)
{
	return sys_fd_is(a->fd, a->dev, a->ino);
}

void arena_release(struct arena *a)
{
	extents_drop(a);
	/* A region's addresses are the program's, and unmapped by now. */
	if (a->granules) {
		map_arena(a, 0);
		sys_mmap(a->base, a->len, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		sys_munmap(a->granules, a->len / ARENA_GRANULE * sizeof(struct granule));
	}
	if (arena_fd_valid(a))
		sys_close(a->fd);
	*a = (struct arena){ .state = ARENA_EMPTY, .fd = -1 };
}
