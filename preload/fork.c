/* SPDX-License-Identifier: MIT */
/*
 * fork.c - see fork.h.
 *
 * The lock of blocks.c is held from prepare to parent or child: the blocks do
 * not change meanwhile.  The parent waits on a pipe, with a deadline, and for
 * its end, so a child that dies does not keep it.
 */
#include "fork.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arena.h"
#include "blocks.h"
#include "common/log.h"
#include "config.h"
#include "session.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"

/* From prepare to parent or child, under the lock. */
static struct {
	bool active; /* there are arenas, the lock is held */
	bool copy;
	int pipe[2]; /* copy: the child writes one byte when done */
} forking = { .pipe = { -1, -1 } };

static bool holds_shared_blocks(const struct arena *a)
{
	return a->state == ARENA_SHARED && a->used;
}

static size_t live_bytes(void)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (holds_shared_blocks(&arenas[i]))
			sum += (size_t)arenas[i].used * ARENA_GRANULE;
	return sum;
}

/*
 * False when it cannot be done: then nothing is lost, the copy is still
 * possible.
 */
static bool make_private(struct arena *a)
{
	long map;

	/* The program may have closed a descriptor that it did not know. */
	if (!arena_fd_valid(a))
		return false;
	map = sys_mmap(a->base, a->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, a->fd, 0);
	if (sys_is_error(map))
		return false;
	blocks_retire(a);
	stat_add(STAT_ARENAS_RETIRED, 1);
	return true;
}

static bool make_all_private(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (holds_shared_blocks(&arenas[i]) && !make_private(&arenas[i]))
			return false;
	return true;
}

static bool choose_copy(size_t live)
{
	if (config.fork != FORK_AUTO)
		return config.fork == FORK_COPY;
	return session_armed() && live <= config.fork_copy_max;
}

static void prepare_copy(void)
{
	forking.copy = true;
	if (sys_call(SYS_pipe2, (long)forking.pipe, O_CLOEXEC, 0, 0, 0, 0) < 0)
		forking.pipe[0] = forking.pipe[1] = -1;
}

void fork_prepare(void)
{
	size_t live;

	forking.active = false;
	/* Without an owner there is neither an arena nor a session. */
	if (!shim.owner || !shim_is_owner())
		return;
	blocks_lock();
	forking.active = true;
	forking.copy = false;
	live = live_bytes();
	if (!live)
		return;
	if (choose_copy(live) || !make_all_private())
		prepare_copy();
	stat_add(forking.copy ? STAT_FORK_COPIES : STAT_FORK_PRIVATE, 1);
}

static void close_pipe_end(int end)
{
	if (forking.pipe[end] >= 0)
		sys_close(forking.pipe[end]);
	forking.pipe[end] = -1;
}

static bool readable_before(long long deadline)
{
	long long left;

	while ((left = deadline - sys_now_ms()) > 0) {
		int ret = sys_poll_in(forking.pipe[0], (int)left);

		if (ret > 0)
			return true;
		if (ret < 0 && ret != -EINTR)
			return false;
	}
	return false;
}

static void wait_for_copy(void)
{
	char byte;

	close_pipe_end(1);
	if (forking.pipe[0] < 0) {
		log_line(LOG_WARN,
			 "no descriptor for a pipe: the child of this fork may see later writes");
		return;
	}
	/* Readable, or hung up because the child is gone: both end the wait. */
	if (!readable_before(sys_now_ms() + FORK_COPY_DEADLINE_MS))
		log_line(LOG_WARN, "the child did not copy its memory in time");
	else
		sys_call(SYS_read, forking.pipe[0], (long)&byte, 1, 0, 0, 0);
	close_pipe_end(0);
}

void fork_parent(void)
{
	if (!forking.active)
		return;
	if (forking.copy)
		wait_for_copy();
	blocks_unlock();
}

struct shadow {
	char *arena;
	char *copy;
};

static void copy_run(char *at, size_t len, void *arg)
{
	struct shadow *s = arg;

	memcpy(s->copy + (at - s->arena), at, len);
}

/* Replace the shared mapping by a private one with the same blocks in it. */
static void copy_arena(struct arena *a)
{
	long map = sys_mmap(NULL, a->len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct shadow s = { .arena = a->base, .copy = (char *)map };

	if (!sys_is_error(map)) {
		blocks_for_each_used(a, copy_run, &s);
		map = sys_call(SYS_mremap, map, (long)a->len, (long)a->len,
			       MREMAP_MAYMOVE | MREMAP_FIXED, (long)a->base, 0);
	}
	if (sys_is_error(map)) {
		/* Better than sharing: only pages neither side has written to
		 * yet can still show what the parent writes. */
		log_line(LOG_WARN, "no memory to copy for a forked child: error %ld", map);
		sys_mmap(a->base, a->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, a->fd,
			 0);
	}
	blocks_retire(a);
}

/* The child keeps the blocks it inherited, and nothing else of the parent's. */
static void disown(struct arena *a)
{
	if (a->state == ARENA_EMPTY)
		return;
	if (holds_shared_blocks(a))
		copy_arena(a);
	else if (a->state == ARENA_SHARED)
		blocks_retire(a); /* holds nothing: released */
	if (a->state == ARENA_RETIRED && a->fd >= 0) {
		if (arena_fd_valid(a))
			sys_close(a->fd);
		a->fd = -1;
	}
}

void fork_child(void)
{
	if (!forking.active)
		return;
	blocks_lock_reset();
	blocks_lock();
	shim_child_is_owner();
	session_forget();
	stats_reset();
	close_pipe_end(0);
	for (unsigned int i = 0; i < arena_slots; i++)
		disown(&arenas[i]);
	if (forking.copy && forking.pipe[1] >= 0)
		sys_call(SYS_write, forking.pipe[1], (long)"", 1, 0, 0, 0);
	close_pipe_end(1);
	blocks_unlock();
}
