/* SPDX-License-Identifier: MIT */
/*
 * move.c - mremap on captured memory; see mappings.h.
 *
 * Moving, shrinking and growing the kernel does as the program asks, and the memory
 * stays captured.  Where growing would run into pages of the memfd that are not new, there is a
 * new mapping, captured if it can be, a copy, and the old one goes.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "blocks.h"
#include "lock.h"
#include "mappings.h"
#include "marks.h"
#include "regions.h"
#include "stats.h"
#include "sys.h"

#define MARK_MS 50
#define ADDRESSES ((size_t)1 << 46) /* bytes: more than a mapping can have */

static bool first_mapping(const struct vma *v, void *arg)
{
	*(struct vma *)arg = *v;
	return false;
}

/* The mapping of ours that the range begins in. */
static bool find(void *at, size_t len, struct vma *ret)
{
	*ret = (struct vma){ .len = 0 };
	return vmas_each(at, len, first_mapping, ret) == 0 && ret->len && ret->start == at;
}

static int unmap(void *addr, size_t len)
{
	int ret = sys_munmap(addr, len);

	if (!ret)
		regions_gone(addr, len);
	return ret;
}

static long raw(void *old, size_t old_len, size_t len, int flags, void *to)
{
	return sys_call(SYS_mremap, (long)old, (long)old_len, (long)len, flags, (long)to, 0);
}

/* What holds for the last page holds for what comes behind it. */
static void mark_more(char *end, size_t len)
{
	for (enum mark mark = MARK_WIPE; mark <= MARK_LOCKED; mark++)
		if (marks_any(mark, end - ARENA_GRANULE, ARENA_GRANULE))
			marks_set(mark, end, len);
}

/* What was asked for the memory goes with it. */
static void take_along(const struct vma *v, char *to, size_t len)
{
	if (!blocks_lock_within(MARK_MS))
		return;
	if (to != v->start) {
		marks_clear_all(to, len);
		marks_move(v->start, to, v->len < len ? v->len : len);
	}
	if (len > v->len) {
		marks_clear_all(to + v->len, len - v->len);
		mark_more(to + v->len, len - v->len);
	}
	regions_moved(v, to, len);
	blocks_unlock();
}

static bool may_grow(const struct vma *v, size_t len)
{
	bool ret;

	if (!blocks_lock())
		return false;
	ret = regions_grow(v, len);
	blocks_unlock();
	return ret;
}

static void did_not_grow(const struct vma *v, size_t len)
{
	if (!blocks_lock_within(MARK_MS))
		return; /* nobody grows there again, that is all */
	regions_did_not_grow(v, len);
	blocks_unlock();
}

/* The kernel does it. */
static long move(const struct vma *v, size_t len, int flags, void *to)
{
	long map = raw(v->start, v->len, len, flags, to);

	if (sys_is_error(map)) {
		if (len > v->len)
			did_not_grow(v, len);
		return map;
	}
	if (flags & MREMAP_FIXED)
		regions_gone(to, len);
	/* The kernel left the same pages there. */
	if (flags & MREMAP_DONTUNMAP)
		mapping_make_anonymous(v, false);
	take_along(v, (char *)map, len);
	return map;
}

static long map_new(size_t len, int flags, void *to)
{
	int fixed = flags & MREMAP_FIXED ? MAP_FIXED : 0;
	int how = MAP_PRIVATE | MAP_ANONYMOUS | fixed;
	void *p = NULL;

	if (mapping_wanted(len, PROT_READ | PROT_WRITE, how))
		p = mapping_new(fixed ? to : NULL, len, PROT_READ | PROT_WRITE, how);
	if (p)
		return (long)p;
	stat_add(STAT_MAPPINGS_LOST, 1);
	return sys_mmap(fixed ? to : NULL, len, PROT_READ | PROT_WRITE, how, -1, 0);
}

struct copy {
	const struct vma *v;
	char *to;
};

static void copy_part(uint64_t offset, size_t len, void *arg)
{
	const struct copy *c = arg;

	memcpy(c->to + (offset - c->v->offset), c->v->start + (offset - c->v->offset), len);
}

static long grow(const struct vma *v, size_t len, int flags, void *to)
{
	const struct arena *a = arena_of_file(v->dev, v->ino, v->offset);
	struct memfile file = a ? a->file : (struct memfile){ .fd = -1 };
	long map = map_new(len, flags, to);
	struct copy c = { v, (char *)map };

	if (sys_is_error(map))
		return map;
	if (!(v->prot & PROT_READ))
		sys_call(SYS_mprotect, (long)v->start, (long)v->len, PROT_READ, 0, 0, 0);
	if (!v->shared || !memfile_each_data(&file, v->offset, v->len, copy_part, &c))
		copy_part(v->offset, v->len, &c);
	if (v->prot != (PROT_READ | PROT_WRITE))
		sys_call(SYS_mprotect, map, (long)len, v->prot, 0, 0, 0);
	if (marks_any(MARK_LOCKED, v->start, v->len))
		mapping_lock(SYS_mlock, (void *)map, len, 0, true);
	if (marks_any(MARK_DONTFORK, v->start, v->len))
		mapping_advise((void *)map, len, MADV_DONTFORK);
	if (marks_any(MARK_WIPE, v->start, v->len))
		mapping_advise((void *)map, len, MADV_WIPEONFORK);
	unmap(v->start, v->len);
	return map;
}

static long shrink(const struct vma *v, size_t old_len, size_t len)
{
	int ret = len < old_len ? unmap(v->start + len, old_len - len) : 0;

	if (!ret && v->len == old_len)
		take_along(v, v->start, len);
	return ret ? ret : (long)v->start;
}

/* As the kernel judges the arguments for private memory. */
static bool is_valid(size_t old_len, size_t len, int flags, const void *to)
{
	bool fixed = (flags & MREMAP_FIXED) != 0;
	bool keeps = (flags & MREMAP_DONTUNMAP) != 0;

	return old_len && len && !(flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) &&
	       (!(fixed || keeps) || (flags & MREMAP_MAYMOVE)) &&
	       (!fixed || (size_t)to % ARENA_GRANULE == 0) && (!keeps || old_len == len);
}

static long remap_captured(const struct vma *v, size_t old_len, size_t len, int flags, void *to)
{
	bool fixed = (flags & MREMAP_FIXED) != 0;
	const struct arena *a;

	if (!is_valid(old_len, len, flags, to) ||
	    (fixed && (char *)to < v->start + old_len && (char *)to + len > v->start))
		return -EINVAL;
	if (!fixed && !(flags & MREMAP_DONTUNMAP) && len <= old_len)
		return shrink(v, old_len, len);
	/* Such a length is an error, and which one the kernel says. */
	if (len > ADDRESSES)
		return raw(v->start, old_len, len, flags, to);
	/* All of it has to be one mapping: so the kernel asks it. */
	if (v->len != old_len)
		return -EFAULT;
	a = arena_of_file(v->dev, v->ino, v->offset);
	if (arena_owns(v->start) || !a || a->huge)
		return -EINVAL;
	if (len <= old_len || may_grow(v, len))
		return move(v, len, flags, to);
	return flags & MREMAP_MAYMOVE ? grow(v, len, flags, to) : -ENOMEM;
}

long mapping_move(void *old, size_t old_len, size_t len, int flags, void *to)
{
	size_t old_whole = round_up(old_len, ARENA_GRANULE);
	struct vma v;
	long ret;

	mappings_enter();
	if ((size_t)old % ARENA_GRANULE == 0 &&
	    find(old, old_whole ? old_whole : ARENA_GRANULE, &v)) {
		ret = remap_captured(&v, old_whole, round_up(len, ARENA_GRANULE), flags, to);
	} else {
		ret = raw(old, old_len, len, flags, to);
		if (!sys_is_error(ret) && (flags & MREMAP_FIXED)) {
			blocks_altered(to, round_up(len, ARENA_GRANULE));
			regions_gone(to, round_up(len, ARENA_GRANULE));
		}
	}
	mappings_leave();
	return ret;
}
