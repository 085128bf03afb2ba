/* SPDX-License-Identifier: MIT */
/* fork_copy.c - a child's own memory instead of what it shares; see fork_steps.h. */
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arena.h"
#include "blocks.h"
#include "common/log.h"
#include "fork_steps.h"
#include "marks.h"
#include "sys.h"
#include "vmas.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

struct copy {
	const struct vma *v;
	struct memfile file;
	char *to; /* NULL until there is something to copy */
	long error;
};

static bool make_room(struct copy *c)
{
	long map;

	if (c->to)
		return true;
	map = sys_mmap(NULL, c->v->len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_error(map))
		c->error = map;
	else
		c->to = (char *)map;
	return c->to != NULL;
}

/* Reading the file needs neither the mapping's protection nor page faults in it. */
static void copy_data(uint64_t offset, size_t len, void *arg)
{
	struct copy *c = arg;

	if (c->error || !make_room(c))
		return;
	/* All page faults at once. */
	sys_madvise(c->to + (offset - c->v->offset), len, MADV_POPULATE_WRITE);
	while (len) {
		long done =
			sys_call(SYS_pread64, c->file.fd, (long)(c->to + (offset - c->v->offset)),
				 (long)len, (long)offset, 0, 0);

		if (done <= 0) {
			c->error = done ? done : -5;
			return;
		}
		offset += (uint64_t)done;
		len -= (size_t)done;
	}
}

/* The part of a block that lies in the mapping. */
static void copy_run(char *at, size_t len, void *arg)
{
	struct copy *c = arg;
	char *start = at > c->v->start ? at : c->v->start;
	char *end = c->v->start + c->v->len;

	if (at + len < end)
		end = at + len;
	if (start < end &&
	    !memfile_each_data(&c->file, c->v->offset + (uint64_t)(start - c->v->start),
			       (size_t)(end - start), copy_data, c))
		c->error = -1;
}

/* The program has closed our descriptor: then through the mapping. */
static void copy_mapping(struct copy *c)
{
	c->error = 0;
	if (!make_room(c))
		return;
	if (!(c->v->prot & PROT_READ))
		sys_call(SYS_mprotect, (long)c->v->start, (long)c->v->len, PROT_READ, 0, 0, 0);
	memcpy(c->to, c->v->start, c->v->len);
}

static void copy_content(struct copy *c, const struct arena *a)
{
	if (!memfile_valid(&c->file)) {
		copy_mapping(c);
		return;
	}
	if (a->granules)
		blocks_for_each_used(a, copy_run, c);
	else
		memfile_each_data(&c->file, c->v->offset, c->v->len, copy_data, c);
}

/* MADV_WIPEONFORK, for good: from here on the kernel does it. */
static void wipe(void *addr, size_t len, void *arg)
{
	const struct vma *v = arg;

	sys_mmap(addr, len, v->prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	sys_madvise(addr, len, MADV_WIPEONFORK);
}

static long put(const struct copy *c)
{
	const struct vma *v = c->v;

	if (!c->to)
		return sys_mmap(v->start, v->len, v->prot,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (v->prot != (PROT_READ | PROT_WRITE))
		sys_call(SYS_mprotect, (long)c->to, (long)v->len, v->prot, 0, 0, 0);
	return sys_call(SYS_mremap, (long)c->to, (long)v->len, (long)v->len,
			MREMAP_MAYMOVE | MREMAP_FIXED, (long)v->start, 0);
}

/* It would write to its parent's memory: so it ends as one for which there is no memory. */
static void end_child(long error)
{
	log_line(LOG_ERROR, "a forked child cannot have memory of its own, and is ended: error %ld",
		 error);
	sys_call(SYS_kill, sys_getpid(), SIGKILL, 0, 0, 0, 0);
}

static void replace_shared(const struct vma *v)
{
	const struct arena *a = arena_of_file(v->dev, v->ino, v->offset);
	struct copy c = { .v = v };
	long ret;

	c.file = a ? a->file : (struct memfile){ .fd = -1 };
	if (a)
		copy_content(&c, a);
	else
		copy_mapping(&c);
	ret = c.error ? c.error : put(&c);
	if (sys_is_error(ret) || c.error) {
		/* Better than sharing: only pages neither side has written to
		 * yet can still show what the parent writes. */
		log_line(LOG_WARN, "no memory to copy for a forked child: error %ld", ret);
		ret = sys_mmap(v->start, v->len, v->prot, MAP_PRIVATE | MAP_FIXED, c.file.fd,
			       (off_t)v->offset);
	}
	if (sys_is_error(ret))
		end_child(ret);
}

static bool replace(const struct vma *v, void *arg)
{
	(void)arg;
	if (v->shared)
		replace_shared(v);
	marks_each(MARK_WIPE, v->start, v->len, wipe, (void *)(uintptr_t)v);
	return true;
}

/* What MADV_DONTFORK left out: nothing else of the program's must come to lie there. */
static void fill_hole(void *addr, size_t len, void *arg)
{
	(void)arg;
	sys_mmap(addr, len, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

/* Without regions all that is ours lies in the reservation. */
static int replace_all(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && arenas[i].pool)
			return vmas_each(NULL, (size_t)1 << 56, replace, NULL);
	return vmas_each(arena_base, arena_reserved, replace, NULL);
}

void fork_copy(void)
{
	if (replace_all() < 0)
		log_line(LOG_WARN, "/proc/self/maps cannot be read: a forked child shares the "
				   "memory of its parent");
	if (arena_reserved)
		marks_each(MARK_DONTFORK, arena_base, arena_reserved, fill_hole, NULL);
}
