/* SPDX-License-Identifier: MIT */
/*
 * fork_stack.c - a stack that was captured; see fork_steps.h.
 *
 * Fibers and coroutines take their stacks where they like, and posix_memalign is common.  A
 * child that shares the stack it runs on, if only until it has copied it, is lost, and its
 * parent too: both write to the same frames.
 *
 * So those pages are the forking thread's own before the fork: mapped private, which leaves
 * their content as it is at any moment, and written to, which takes them out of the file.
 * Stacks of threads, where libc keeps more than frames, are never shared: map_wrappers.c.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "blocks.h"
#include "common/log.h"
#include "fork_steps.h"
#include "mappings.h"
#include "marks.h"
#include "regions.h"
#include "sys.h"
#include "vmas.h"
#include "waiters.h"

/* Bytes that both sides write to between the fork and the end of the copy. */
#define BELOW (64UL << 10) /* of the stack: calls, and other people's handlers */
#define ABOVE (8UL << 10)  /* of it: the frame of fork() itself */

struct range {
	const char *at;
	char *start, *end; /* about @at, and nobody else's */
	const struct arena *arena;
	bool any; /* was taken out */
};

static bool note_arena(const struct vma *v, void *arg)
{
	struct range *r = arg;

	r->arena = arena_of_file(v->dev, v->ino, v->offset);
	return false;
}

static void clip_to_run(char *at, size_t len, void *arg)
{
	struct range *r = arg;

	if (r->at < at || r->at >= at + len)
		return;
	r->start = at > r->start ? at : r->start;
	r->end = at + len < r->end ? at + len : r->end;
}

static bool take_out(const struct vma *v, void *arg)
{
	struct range *r = arg;
	struct arena *a = arena_of_file(v->dev, v->ino, v->offset);
	long map;

	/* What cannot be written to is nobody's frame: a guard page. */
	if (!v->shared || !(v->prot & PROT_WRITE) || a != r->arena || !memfile_valid(&a->file))
		return true;
	map = sys_mmap(v->start, v->len, v->prot, MAP_PRIVATE | MAP_FIXED, a->file.fd,
		       (off_t)v->offset);
	if (sys_is_error(map)) {
		log_line(LOG_WARN, "a fork on a stack that was captured: no memory: error %ld", map);
		return true;
	}
	for (size_t i = 0; i < v->len; i += ARENA_GRANULE)
		__atomic_fetch_or(v->start + i, 0, __ATOMIC_RELAXED);
	marks_apply(v->start, v->len);
	a->taken_out = r->any = true;
	blocks_altered(v->start, v->len);
	return true;
}

static void take_out_range(struct range *r)
{
	sigset_t before;
	bool closed;

	/* A block is the thread's own; of a mapping others may unmap something just now. */
	sys_block_signals(&before);
	closed = !r->arena->granules && mappings_close();
	vmas_each(r->start, (size_t)(r->end - r->start), take_out, r);
	if (closed)
		mappings_open();
	sys_restore_signals(&before);
}

/* True: something of it was taken out. */
static bool own(const void *at, size_t below, size_t above)
{
	struct range r = { .at = at };

	if (!regions_touch(at, 1))
		return false;
	r.start = (char *)((uintptr_t)r.at & ~(ARENA_GRANULE - 1));
	vmas_each(r.start, ARENA_GRANULE, note_arena, &r);
	if (!r.arena)
		return false;
	r.start = (char *)(((uintptr_t)r.at - below) & ~(ARENA_GRANULE - 1));
	r.end = (char *)(((uintptr_t)r.at + above + ARENA_GRANULE) & ~(ARENA_GRANULE - 1));
	if (r.arena->granules)
		blocks_for_each_used(r.arena, clip_to_run, &r);
	take_out_range(&r);
	return r.any;
}

void fork_own_stack(const void *top)
{
	stack_t signals = { .ss_flags = SS_DISABLE };
	bool any = own(top, BELOW, ABOVE);

	/* Where a handler would run. */
	sys_call(SYS_sigaltstack, 0, (long)&signals, 0, 0, 0, 0);
	if (!(signals.ss_flags & SS_DISABLE) && signals.ss_size)
		any = own((char *)signals.ss_sp + signals.ss_size - 1, BELOW, 0) || any;
	/* There may be futexes, which have another name now. */
	if (any)
		waiters_wake();
}
