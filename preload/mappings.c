/* SPDX-License-Identifier: MIT */
/* mappings.c - see mappings.h. */
#include "mappings.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "blocks.h"
#include "extents.h"
#include "profile.h"
#include "session.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

/* Clearing more than this costs more than a new mapping does. */
#define CLEAR_MAX (1UL << 20)

#define NOT_CAPTURED_FLAGS (MAP_STACK | MAP_GROWSDOWN | MAP_NORESERVE | MAP_32BIT | MAP_SHARED)

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

/*
 * Take the lock, with room for what any one call may split.  -ENOMEM, as at
 * the kernel's limit of mappings; also in a signal handler that interrupted
 * this thread while it held the lock.
 */
static int begin(void)
{
	if (blocks_locked_here())
		return -ENOMEM;
	blocks_lock();
	if (extents_room())
		return 0;
	blocks_unlock();
	return -ENOMEM;
}

static void release_unused(void)
{
	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];

		if (a->state == ARENA_EMPTY || a->granules || arena_in_use(a))
			continue;
		blocks_events.arena_gone(a);
		arena_release(a);
	}
}

static void end(void)
{
	release_unused();
	blocks_unlock();
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

static struct arena *new_region(const struct arena_wish *wish)
{
	struct arena *a;

	if (!shim_mark_owner() || shim.owner != sys_getpid() || begin() < 0)
		return NULL;
	a = arena_new_region(wish);
	if (a && (wish->flags & MAP_LOCKED))
		extents_change(a->base, a->len, EXTENT_LOCKED, true);
	end();
	return a;
}

void *mapping_new(void *addr, size_t len, int prot, int flags)
{
	struct arena_wish wish = { addr, round_up(len, page_size_of(flags)), prot, flags };
	struct arena *a;
	char *base;

	if (wish.len < len || wish.len > ARENA_SIZE_MAX) {
		stat_add(STAT_TOO_BIG, 1);
		return NULL;
	}
	a = new_region(&wish);
	if (!a) {
		stat_add(STAT_NO_ARENA, 1);
		return NULL;
	}
	base = a->base;
	stat_add(STAT_MAPPINGS, 1);
	stat_add(STAT_MAPPED_BYTES, len);
	session_offer_memory();
	return base;
}

long mapping_replace(void *addr, size_t len, int prot, int flags, int fd, long offset)
{
	int ret = begin();
	long map;

	if (ret)
		return ret;
	map = sys_mmap(addr, len, prot, flags, fd, offset);
	if (!sys_is_error(map))
		extents_cut(addr, round_up(len, ARENA_GRANULE));
	end();
	return map;
}

/* ---- munmap, mprotect, mlock ---- */

int mapping_unmap(void *addr, size_t len)
{
	int ret = begin();

	if (ret)
		return ret;
	ret = sys_munmap(addr, len);
	if (!ret)
		extents_cut(addr, round_up(len, ARENA_GRANULE));
	end();
	return ret;
}

static bool protect_again(const struct extent *piece, void *arg)
{
	(void)arg;
	sys_call(SYS_mprotect, (long)piece->start, (long)piece->len, piece->prot, 0, 0, 0);
	return true;
}

int mapping_protect(void *addr, size_t len, int prot, int pkey)
{
	int ret = begin();

	if (ret)
		return ret;
	if (pkey < 0)
		ret = (int)sys_call(SYS_mprotect, (long)addr, (long)len, prot, 0, 0, 0);
	else
		ret = (int)sys_call(SYS_pkey_mprotect, (long)addr, (long)len, prot, pkey, 0, 0);
	if (!ret)
		extents_change(addr, round_up(len, ARENA_GRANULE), EXTENT_PROT,
			       prot & (PROT_READ | PROT_WRITE | PROT_EXEC));
	else if (ret == -ENOMEM) /* done as far as the first hole */
		extents_each(addr, round_up(len, ARENA_GRANULE), protect_again, NULL);
	end();
	return ret;
}

int mapping_lock(long syscall_nr, const void *addr, size_t len, unsigned int flags, bool locked)
{
	size_t within = (size_t)addr % ARENA_GRANULE;
	int ret = begin();

	if (ret)
		return ret;
	ret = (int)sys_call(syscall_nr, (long)addr, (long)len, flags, 0, 0, 0);
	if (!ret)
		extents_change((const char *)addr - within, round_up(len + within, ARENA_GRANULE),
			       EXTENT_LOCKED, locked);
	end();
	return ret;
}

void mapping_all_locked(bool locked)
{
	if (begin())
		return;
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY)
			extents_change(arenas[i].base, arenas[i].len, EXTENT_LOCKED, locked);
	end();
}

/* ---- madvise ---- */

/*
 * Fresh anonymous memory in the place of a piece: exactly what the program
 * believes it had.  It is no longer captured.
 */
static int replace_by_anonymous(const struct extent *piece)
{
	long map = sys_mmap(piece->start, piece->len, piece->prot,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
				    (piece->locked ? MAP_LOCKED : 0) |
				    (arenas[piece->arena].huge ? MAP_HUGETLB : 0),
			    -1, 0);

	if (sys_is_error(map))
		return (int)map;
	if (piece->dontfork)
		sys_madvise(piece->start, piece->len, MADV_DONTFORK);
	if (piece->wipe)
		sys_madvise(piece->start, piece->len, MADV_WIPEONFORK);
	extents_cut(piece->start, piece->len);
	stat_add(STAT_MAPPINGS_LOST, 1);
	return 0;
}

static void clear(const struct extent *piece)
{
	bool writable = (piece->prot & PROT_WRITE) != 0;
	int rw = PROT_READ | PROT_WRITE;

	if (!writable)
		sys_call(SYS_mprotect, (long)piece->start, (long)piece->len, rw, 0, 0, 0);
	memset(piece->start, 0, piece->len);
	if (!writable)
		sys_call(SYS_mprotect, (long)piece->start, (long)piece->len, piece->prot, 0, 0, 0);
}

/* MADV_DONTNEED: the next read is of zeroes. */
static bool forget_content(const struct extent *piece, void *arg)
{
	bool region = !arenas[piece->arena].granules;
	bool worth_keeping = !piece->own && (!region || piece->len <= CLEAR_MAX);
	int *ret = arg;

	/* Behind our back the pages are the parent's too. */
	if (worth_keeping && shim_is_owner()) {
		clear(piece);
		return true;
	}
	*ret = replace_by_anonymous(piece);
	return *ret == 0;
}

static int dont_need(void *addr, size_t len, int advice)
{
	/* First the kernel's own verdict: bad ranges, locked pages, holes. */
	int verdict = sys_madvise(addr, len, advice);
	int ret = 0;

	if (verdict && verdict != -ENOMEM)
		return verdict;
	extents_each(addr, len, forget_content, &ret);
	return ret ? ret : verdict;
}

static bool uncapture(const struct extent *piece, void *arg)
{
	int *ret = arg;

	/* A block's addresses stay the arena's. */
	*ret = arenas[piece->arena].granules ? -EINVAL : replace_by_anonymous(piece);
	return *ret == 0;
}

static int change_fork(void *addr, size_t len, int advice)
{
	bool wipe = advice == MADV_WIPEONFORK || advice == MADV_KEEPONFORK;
	int ret = 0;

	/* The kernel knows WIPEONFORK for private memory only; fork.c does it. */
	if (!wipe)
		ret = sys_madvise(addr, len, advice);
	else if (!extents_cover(addr, len))
		ret = -EINVAL;
	if (ret && ret != -ENOMEM) /* ENOMEM: a hole, but done for the rest */
		return ret;
	extents_change(addr, len, wipe ? EXTENT_WIPE : EXTENT_DONTFORK,
		       advice == MADV_WIPEONFORK || advice == MADV_DONTFORK);
	return ret;
}

static int advise(void *addr, size_t len, int advice)
{
	int ret = 0;

	switch (advice) {
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
		return dont_need(addr, len, advice);
	case MADV_DONTFORK:
	case MADV_DOFORK:
	case MADV_WIPEONFORK:
	case MADV_KEEPONFORK:
		return change_fork(addr, len, advice);
	case MADV_FREE:
		return 0; /* may be freed later: or never */
	case MADV_REMOVE:
		return -EINVAL; /* as for any private memory */
	case MADV_GUARD_INSTALL:
		/* It forgets the content too. */
		extents_each(addr, len, uncapture, &ret);
		return ret ? ret : sys_madvise(addr, len, advice);
	default:
		return sys_madvise(addr, len, advice);
	}
}

int mapping_advise(void *addr, size_t len, int advice)
{
	size_t whole = round_up(len, ARENA_GRANULE);
	int ret;

	if ((size_t)addr % ARENA_GRANULE || whole < len)
		return -EINVAL;
	ret = begin();
	if (ret)
		return ret;
	ret = extents_meet(addr, whole) ? advise(addr, whole, advice)
					: sys_madvise(addr, len, advice);
	end();
	return ret;
}

/* ---- mremap ---- */

static bool one_mapping(const struct extent *piece, void *arg)
{
	const struct extent **first = arg;
	static struct extent found; /* under the lock */

	if (*first)
		return false;
	found = *piece;
	*first = &found;
	return true;
}

/* The extent that [@at, @at+@len) lies in, as the kernel asks of mremap. */
static const struct extent *find_one(void *at, size_t len)
{
	const struct extent *e = NULL;

	return extents_each(at, len, one_mapping, &e) && e && e->len == len ? e : NULL;
}

/*
 * Growing in place would run into pages beyond the memfd's end, or into the
 * next mapping: so a new private mapping, a copy, and the old one goes.
 */
static long move(const struct extent *e, size_t len, int flags, void *to)
{
	size_t keep = e->len < len ? e->len : len;
	int where = flags & MREMAP_FIXED ? MAP_FIXED : 0;
	long map;

	if (where && (char *)to < e->start + e->len && (char *)to + len > e->start)
		return -EINVAL;
	map = sys_mmap(where ? to : NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | where, -1, 0);
	if (sys_is_error(map))
		return map;
	extents_cut((void *)map, len);
	if (!(e->prot & PROT_READ))
		sys_call(SYS_mprotect, (long)e->start, (long)keep, PROT_READ, 0, 0, 0);
	memcpy((void *)map, e->start, keep);
	if (e->prot != (PROT_READ | PROT_WRITE))
		sys_call(SYS_mprotect, map, (long)len, e->prot, 0, 0, 0);
	if (flags & MREMAP_DONTUNMAP) {
		if (replace_by_anonymous(e))
			clear(e);
	} else {
		sys_munmap(e->start, e->len);
		extents_cut(e->start, e->len);
	}
	stat_add(STAT_MAPPINGS_LOST, 1);
	return map;
}

/* As the kernel judges the arguments for private memory. */
static bool move_is_valid(size_t old_len, size_t len, int flags, const void *to)
{
	bool fixed = (flags & MREMAP_FIXED) != 0;
	bool keeps = (flags & MREMAP_DONTUNMAP) != 0;

	return old_len && len && !(flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) &&
	       (!(fixed || keeps) || (flags & MREMAP_MAYMOVE)) &&
	       (!fixed || (size_t)to % ARENA_GRANULE == 0) && (!keeps || old_len == len);
}

static long remap_captured(void *old, size_t old_len, size_t len, int flags, void *to)
{
	const struct extent *e = find_one(old, old_len);

	if (!move_is_valid(old_len, len, flags, to))
		return -EINVAL;
	if (!e)
		return -EFAULT;
	if (arenas[e->arena].granules || arenas[e->arena].huge)
		return -EINVAL;
	if (len == old_len && !(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)))
		return (long)old;
	if (len < old_len && !(flags & MREMAP_FIXED)) {
		int ret = sys_munmap((char *)old + len, old_len - len);

		if (ret)
			return ret;
		extents_cut((char *)old + len, old_len - len);
		return (long)old;
	}
	return flags & MREMAP_MAYMOVE ? move(e, len, flags, to) : -ENOMEM;
}

long mapping_move(void *old, size_t old_len, size_t len, int flags, void *to)
{
	long ret = begin();

	if (ret)
		return ret;
	if ((size_t)old % ARENA_GRANULE == 0 && find_one(old, ARENA_GRANULE)) {
		ret = remap_captured(old, round_up(old_len, ARENA_GRANULE),
				     round_up(len, ARENA_GRANULE), flags, to);
	} else {
		ret = sys_call(SYS_mremap, (long)old, (long)old_len, (long)len, flags, (long)to, 0);
		if (!sys_is_error(ret) && (flags & MREMAP_FIXED))
			extents_cut(to, round_up(len, ARENA_GRANULE));
	}
	end();
	return ret;
}
