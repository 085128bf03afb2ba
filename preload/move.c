/* SPDX-License-Identifier: MIT */
/*
 * move.c - mremap on captured memory; see mappings.h.
 *
 * Moving and shrinking the kernel does as the program asks, and the memory stays
 * captured.  Growing would run into pages of the memfd that are another region's: so a
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

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static bool one_mapping(const struct vma *v, void *arg)
{
	struct vma *first = arg;

	if (first->len) {
		first->len = 0; /* more than one */
		return false;
	}
	*first = *v;
	return true;
}

/* The mapping that all of the range lies in, as the kernel asks of mremap. */
static bool find_one(void *at, size_t len, struct vma *ret)
{
	ret->len = 0;
	return vmas_each(at, len, one_mapping, ret) == 0 && ret->len == len;
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

/* What was asked for the memory goes with it. */
static void take_along(const struct vma *v, long to, size_t len)
{
	if (!blocks_lock_within(MARK_MS))
		return;
	marks_clear_all((void *)to, len);
	marks_move(v->start, (void *)to, v->len < len ? v->len : len);
	regions_moved(v->start, (void *)to, len);
	blocks_unlock();
}

/* Not longer than it is, so that the kernel can do it. */
static long move(const struct vma *v, size_t len, int flags, void *to)
{
	long map = raw(v->start, v->len, len, flags, to);

	if (sys_is_error(map))
		return map;
	if (flags & MREMAP_FIXED)
		regions_gone(to, len);
	/* The kernel left the same pages there. */
	if (flags & MREMAP_DONTUNMAP)
		mapping_make_anonymous(v, false);
	take_along(v, map, len);
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

/* As the kernel judges the arguments for private memory. */
static bool is_valid(size_t old_len, size_t len, int flags, const void *to)
{
	bool fixed = (flags & MREMAP_FIXED) != 0;
	bool keeps = (flags & MREMAP_DONTUNMAP) != 0;

	return old_len && len && !(flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) &&
	       (!(fixed || keeps) || (flags & MREMAP_MAYMOVE)) &&
	       (!fixed || (size_t)to % ARENA_GRANULE == 0) && (!keeps || old_len == len);
}

static long remap_captured(void *old, size_t old_len, size_t len, int flags, void *to)
{
	bool fixed = (flags & MREMAP_FIXED) != 0;
	const struct arena *a;
	struct vma v;

	if (!is_valid(old_len, len, flags, to) ||
	    (fixed && (char *)to < (char *)old + old_len && (char *)to + len > (char *)old))
		return -EINVAL;
	if (!fixed && !(flags & MREMAP_DONTUNMAP) && len <= old_len) {
		int ret = len < old_len ? unmap((char *)old + len, old_len - len) : 0;

		return ret ? ret : (long)old;
	}
	if (!find_one(old, old_len, &v))
		return -EFAULT;
	a = arena_of_file(v.dev, v.ino, v.offset);
	if (arena_owns(old) || !a || a->huge)
		return -EINVAL;
	if (len <= old_len)
		return move(&v, len, flags, to);
	return flags & MREMAP_MAYMOVE ? grow(&v, len, flags, to) : -ENOMEM;
}

long mapping_move(void *old, size_t old_len, size_t len, int flags, void *to)
{
	bool ours = false;
	struct vma v;
	long ret;

	mappings_enter();
	if ((size_t)old % ARENA_GRANULE == 0)
		ours = find_one(old, ARENA_GRANULE, &v);
	if (ours) {
		ret = remap_captured(old, round_up(old_len, ARENA_GRANULE),
				     round_up(len, ARENA_GRANULE), flags, to);
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
