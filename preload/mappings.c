/* SPDX-License-Identifier: MIT */
/* mappings.c - mmap, munmap, mprotect and mlock; see mappings.h. */
#include "mappings.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "blocks.h"
#include "lock.h"
#include "marks.h"
#include "profile.h"
#include "regions.h"
#include "session.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"

#ifndef MAP_32BIT
#define MAP_32BIT 0 /* x86 only */
#endif
#define NOT_CAPTURED_FLAGS (MAP_STACK | MAP_GROWSDOWN | MAP_NORESERVE | MAP_32BIT | MAP_SHARED)
#define MARK_MS 50 /* to set a mark, of which no note can be left */

/* ---- a fork and these calls keep out of each other's way ---- */

#define CLOSED (1 << 30)

static atomic_int under_way; /* calls, and CLOSED */

void mappings_enter(void)
{
	/* A fork closes for less than a millisecond, with signals blocked. */
	while (atomic_fetch_add(&under_way, 1) & CLOSED) {
		atomic_fetch_sub(&under_way, 1);
		sys_sleep_us(50);
	}
}

void mappings_leave(void)
{
	atomic_fetch_sub(&under_way, 1);
}

bool mappings_close(void)
{
	for (int i = 0; i < 20; i++) {
		int none = 0;

		if (atomic_compare_exchange_strong(&under_way, &none, CLOSED))
			return true;
		sys_sleep_us(100);
	}
	return false;
}

void mappings_open(void)
{
	atomic_fetch_sub(&under_way, CLOSED);
}

void mappings_reset(void)
{
	under_way = 0;
}

/* ---- mmap ---- */

static bool looks_like_buffers(int prot, int flags)
{
	return prot == (PROT_READ | PROT_WRITE) &&
	       (flags & (MAP_TYPE | MAP_ANONYMOUS)) == (MAP_PRIVATE | MAP_ANONYMOUS) &&
	       !(flags & NOT_CAPTURED_FLAGS);
}

bool mapping_wanted(size_t len, int prot, int flags)
{
	return len >= shim.mmap_min && looks_like_buffers(prot, flags) && shim.on &&
	       shim_is_owner();
}

bool mapping_would_be_wanted(size_t len, int prot, int flags)
{
	return len >= PROFILE_MMAP_MIN && looks_like_buffers(prot, flags);
}

static size_t page_size_of(int flags)
{
	unsigned int shift = (unsigned int)flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK;

	if (!(flags & MAP_HUGETLB))
		return ARENA_GRANULE;
	return shift ? 1UL << shift : 2UL << 20;
}

static char *new_region(const struct region_wish *wish)
{
	bool over_ours = (wish->flags & MAP_FIXED) && regions_touch(wish->addr, wish->len);
	struct arena *a;
	char *base;

	if (!shim_mark_owner() || shim.owner != sys_getpid() || !blocks_lock_patiently())
		return NULL;
	a = region_new(wish);
	base = a ? a->base : NULL;
	blocks_unlock();
	if (base && over_ours)
		regions_gone(base, wish->len);
	return base;
}

void *mapping_new(void *addr, size_t len, int prot, int flags)
{
	struct region_wish wish = { addr, round_up(len, page_size_of(flags)), prot, flags };
	char *base;

	if (wish.len < len || wish.len > ARENA_SIZE_MAX) {
		stat_add(STAT_TOO_BIG, 1);
		return NULL;
	}
	mappings_enter();
	base = new_region(&wish);
	mappings_leave();
	if (!base) {
		stat_add(STAT_NO_ARENA, 1);
		return NULL;
	}
	stat_add(STAT_MAPPINGS, 1);
	stat_add(STAT_MAPPED_BYTES, len);
	return base;
}

long mapping_replace(void *addr, size_t len, int prot, int flags, int fd, long offset)
{
	long map;

	mappings_enter();
	map = sys_mmap(addr, len, prot, flags, fd, offset);
	mappings_leave();
	if (!sys_is_error(map)) {
		blocks_altered(addr, round_up(len, ARENA_GRANULE));
		regions_gone(addr, round_up(len, ARENA_GRANULE));
	}
	return map;
}

long mapping_attach(int id, void *addr, int flags)
{
	struct shmid_ds ds;
	long at;

	if (sys_call(SYS_shmctl, id, IPC_STAT, (long)&ds, 0, 0, 0) < 0)
		ds.shm_segsz = 1;
	mappings_enter();
	at = sys_call(SYS_shmat, id, (long)addr, flags, 0, 0, 0);
	mappings_leave();
	if (!sys_is_error(at)) {
		blocks_altered((void *)at, round_up(ds.shm_segsz, ARENA_GRANULE));
		regions_gone((void *)at, round_up(ds.shm_segsz, ARENA_GRANULE));
	}
	return at;
}

/* ---- munmap, mprotect, mlock ---- */

int mapping_unmap(void *addr, size_t len)
{
	size_t whole = round_up(len, ARENA_GRANULE);
	int ret;

	mappings_enter();
	ret = sys_munmap(addr, len);
	mappings_leave();
	if (!ret) {
		blocks_altered(addr, whole);
		regions_gone(addr, whole);
	}
	return ret;
}

int mapping_protect(void *addr, size_t len, int prot, int pkey)
{
	int ret;

	mappings_enter();
	if (pkey < 0)
		ret = (int)sys_call(SYS_mprotect, (long)addr, (long)len, prot, 0, 0, 0);
	else
		ret = (int)sys_call(SYS_pkey_mprotect, (long)addr, (long)len, prot, pkey, 0, 0);
	mappings_leave();
	/* Also when it failed: it may have got as far as a hole. */
	blocks_altered(addr, round_up(len, ARENA_GRANULE));
	return ret;
}

int mapping_lock(long syscall_nr, const void *addr, size_t len, unsigned int flags, bool locked)
{
	size_t within = (size_t)addr % ARENA_GRANULE;
	const char *start = (const char *)addr - within;
	size_t whole = round_up(len + within, ARENA_GRANULE);
	int ret;

	if (!blocks_lock_within(MARK_MS))
		return -EAGAIN;
	ret = (locked ? marks_set : marks_clear)(MARK_LOCKED, start, whole) ? 0 : -EAGAIN;
	blocks_unlock();
	if (ret)
		return ret;
	mappings_enter();
	ret = (int)sys_call(syscall_nr, (long)addr, (long)len, flags, 0, 0, 0);
	mappings_leave();
	return ret;
}

void mapping_all_locked(bool locked)
{
	if (!blocks_lock_within(MARK_MS))
		return;
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY)
			(locked ? marks_set : marks_clear)(MARK_LOCKED, arenas[i].base,
							   arenas[i].len);
	blocks_unlock();
}
