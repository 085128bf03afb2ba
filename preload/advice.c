/* SPDX-License-Identifier: MIT */
/* advice.c - madvise and userfaultfd on captured memory; see mappings.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "blocks.h"
#include "lock.h"
#include "mappings.h"
#include "marks.h"
#include "regions.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif

/* With a server that holds the memory.  Clearing more than this costs more than a new mapping does.
 */
#define CLEAR_MAX (1UL << 20)
#define MARK_MS 50 /* to set a mark, of which no note can be left */

static bool in_blocks(const struct vma *v)
{
	return arena_owns(v->start);
}

static bool is_huge(const struct vma *v)
{
	const struct arena *a = arena_of_file(v->dev, v->ino, v->offset);

	return a && a->huge;
}

static struct memfile file_of(const struct vma *v)
{
	const struct arena *a = arena_of_file(v->dev, v->ino, v->offset);

	return a ? a->file : (struct memfile){ .fd = -1 };
}

/* Something is done to the part of @v that exists in its file. */
struct part {
	const struct vma *v;
	char *copy; /* where @v's content goes */
};

static bool is_zero(const char *page)
{
	const uint64_t *words = (const uint64_t *)page;

	for (size_t i = 0; i < ARENA_GRANULE / sizeof(*words); i++)
		if (words[i])
			return false;
	return true;
}

/* Pages of zeroes are left out: what the program gave back must be missing again. */
static void copy_part(uint64_t offset, size_t len, void *arg)
{
	const struct part *p = arg;
	size_t at = offset - p->v->offset;

	for (size_t done = 0; done < len; done += ARENA_GRANULE)
		if (!is_zero(p->v->start + at + done))
			memcpy(p->copy + at + done, p->v->start + at + done, ARENA_GRANULE);
}

static void clear_part(uint64_t offset, size_t len, void *arg)
{
	const struct part *p = arg;

	memset(p->v->start + (offset - p->v->offset), 0, len);
}

/* @what for what exists of @v; for all of it when that cannot be asked. */
static void each_part(const struct vma *v, char *copy,
		      void (*what)(uint64_t offset, size_t len, void *arg))
{
	struct memfile file = file_of(v);
	struct part p = { v, copy };

	if (!v->shared || !memfile_each_data(&file, v->offset, v->len, what, &p))
		what(v->offset, v->len, &p);
}

static void protect(const struct vma *v, int prot)
{
	sys_call(SYS_mprotect, (long)v->start, (long)v->len, prot, 0, 0, 0);
}

static void wipe_on_fork(void *addr, size_t len, void *arg)
{
	(void)arg;
	sys_madvise(addr, len, MADV_WIPEONFORK);
}

/* Marks are only read here: without the lock they may be a moment old. */
static void apply_marks(const struct vma *v)
{
	marks_apply(v->start, v->len);
	marks_each(MARK_WIPE, v->start, v->len, wipe_on_fork, NULL);
}

static int put_copy(const struct vma *v)
{
	long map =
		sys_mmap(NULL, v->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *copy = (char *)map;

	if (sys_is_error(map))
		return (int)map;
	if (!(v->prot & PROT_READ))
		protect(v, PROT_READ);
	each_part(v, copy, copy_part);
	sys_call(SYS_mprotect, map, (long)v->len, v->prot, 0, 0, 0);
	map = sys_call(SYS_mremap, map, (long)v->len, (long)v->len, MREMAP_MAYMOVE | MREMAP_FIXED,
		       (long)v->start, 0);
	if (!sys_is_error(map))
		return 0;
	sys_munmap(copy, v->len);
	return (int)map;
}

int mapping_make_anonymous(const struct vma *v, bool keep_content)
{
	int ret;

	if (keep_content)
		ret = put_copy(v);
	else {
		long map = sys_mmap(v->start, v->len, v->prot,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
					    (is_huge(v) ? MAP_HUGETLB : 0),
				    -1, 0);

		ret = sys_is_error(map) ? (int)map : 0;
	}
	if (ret)
		return ret;
	apply_marks(v);
	regions_gone(v->start, v->len);
	stat_add(STAT_MAPPINGS_LOST, 1);
	return 0;
}

/* ---- madvise ---- */

static void clear(const struct vma *v)
{
	if (!(v->prot & PROT_WRITE))
		protect(v, PROT_READ | PROT_WRITE);
	each_part(v, NULL, clear_part);
	if (!(v->prot & PROT_WRITE))
		protect(v, v->prot);
}

/* What a server has registered it would go on holding. */
static bool punch(const struct vma *v)
{
	struct memfile file = file_of(v);

	return !blocks_events.armed() && !is_huge(v) && memfile_punch(&file, v->offset, v->len);
}

/* MADV_DONTNEED: the next read is of zeroes. */
static bool forget_content(const struct vma *v, void *arg)
{
	int *ret = arg;

	/* Behind our back the pages are the parent's too. */
	if (v->shared && shim_is_owner() && punch(v))
		return true;
	if (v->shared && (in_blocks(v) || v->len <= CLEAR_MAX) && shim_is_owner())
		clear(v);
	else
		*ret = mapping_make_anonymous(v, false);
	return *ret == 0;
}

static bool any(const struct vma *v, void *arg)
{
	(void)v;
	*(bool *)arg = true;
	return false;
}

static bool meets_ours(const void *addr, size_t len)
{
	bool found = false;

	/* Where the kernel cannot be asked, it may be. */
	return vmas_each(addr, len, any, &found) < 0 || found;
}

static int dont_need(void *addr, size_t len, int advice)
{
	/* First the kernel's own verdict: bad ranges, locked pages, holes. */
	int verdict = sys_madvise(addr, len, advice);
	int ret = 0;
	int err;

	if (verdict && verdict != -ENOMEM)
		return verdict;
	err = vmas_each(addr, len, forget_content, &ret);
	if (err)
		return -EAGAIN;
	return ret ? ret : verdict;
}

/* A block's part is put back when it is freed. */
static void take_out(const struct vma *v)
{
	arena_of(v->start)->taken_out = true;
	blocks_altered(v->start, v->len);
}

static bool give_up_empty(const struct vma *v, void *arg)
{
	int *ret = arg;

	*ret = is_huge(v) ? -EINVAL : mapping_make_anonymous(v, false);
	if (!*ret && in_blocks(v))
		take_out(v);
	return *ret == 0;
}

/* To be asked before anything is forgotten. */
static bool kernel_has_guards(void)
{
	long map = sys_mmap(NULL, ARENA_GRANULE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool has = !sys_is_error(map) &&
		   sys_madvise((void *)map, ARENA_GRANULE, MADV_GUARD_INSTALL) == 0;

	if (!sys_is_error(map))
		sys_munmap((void *)map, ARENA_GRANULE);
	return has;
}

/* Of private memory only, on the kernels that had them first; and it forgets its content. */
static int install_guards(void *addr, size_t len)
{
	int ret = 0;

	if (!kernel_has_guards() || marks_any(MARK_LOCKED, addr, len))
		return -EINVAL;
	if (vmas_each(addr, len, give_up_empty, &ret))
		return -EAGAIN;
	return ret ? ret : sys_madvise(addr, len, MADV_GUARD_INSTALL);
}

static bool add_len(const struct vma *v, void *arg)
{
	*(size_t *)arg += v->len;
	return true;
}

static bool covered(const void *addr, size_t len)
{
	size_t sum = 0;

	return vmas_each(addr, len, add_len, &sum) == 0 && sum == len;
}

static int mark(enum mark mark, bool set, void *addr, size_t len)
{
	bool done;

	if (!blocks_lock_within(MARK_MS))
		return -EAGAIN;
	done = (set ? marks_set : marks_clear)(mark, addr, len);
	blocks_unlock();
	blocks_altered(addr, len);
	return done ? 0 : -EAGAIN;
}

static int change_fork(void *addr, size_t len, int advice)
{
	bool set = advice == MADV_WIPEONFORK || advice == MADV_DONTFORK;
	bool wipe = advice == MADV_WIPEONFORK || advice == MADV_KEEPONFORK;
	int ret;

	/* The kernel knows WIPEONFORK for private memory only; forks see to it. */
	if (wipe)
		return covered(addr, len) ? mark(MARK_WIPE, set, addr, len) : -EINVAL;
	ret = mark(MARK_DONTFORK, set, addr, len);
	return ret ? ret : sys_madvise(addr, len, advice);
}

static int advise(void *addr, size_t len, int advice)
{
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
		return install_guards(addr, len);
	default:
		return sys_madvise(addr, len, advice);
	}
}

/* Means the same to a shared mapping as to a private one: nobody need be asked which it is. */
static bool is_neutral(int advice)
{
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
	case MADV_DONTFORK:
	case MADV_DOFORK:
	case MADV_WIPEONFORK:
	case MADV_KEEPONFORK:
	case MADV_FREE:
	case MADV_REMOVE:
	case MADV_GUARD_INSTALL:
		return false;
	default:
		return true;
	}
}

int mapping_advise(void *addr, size_t len, int advice)
{
	size_t whole = round_up(len, ARENA_GRANULE);
	int ret;

	if ((size_t)addr % ARENA_GRANULE || whole < len)
		return -EINVAL;
	if (is_neutral(advice))
		return sys_madvise(addr, len, advice);
	mappings_enter();
	/* What DONTNEED is to be done for it finds by itself. */
	ret = advice == MADV_DONTNEED || meets_ours(addr, whole) ? advise(addr, whole, advice)
								 : sys_madvise(addr, len, advice);
	mappings_leave();
	return ret;
}

/* ---- userfaultfd, stacks ---- */

static bool give_up_full(const struct vma *v, void *arg)
{
	int *ret = arg;

	*ret = is_huge(v) ? 0 : mapping_make_anonymous(v, true);
	if (in_blocks(v))
		take_out(v);
	return *ret == 0;
}

int mapping_give_up(void *addr, size_t len)
{
	int ret = 0;
	int err;

	mappings_enter();
	err = vmas_each(addr, len, give_up_full, &ret);
	mappings_leave();
	return err ? err : ret;
}
