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
#include "extents.h"
#include "session.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"

/*
 * From prepare to parent or child, under the lock; whether this thread's prepare
 * has taken it, blocks_locked_here() knows.  Other threads may fork meanwhile.
 */
static struct {
	bool copy;
	int pipe[2]; /* copy: the child writes one byte when done */
} forking = { .pipe = { -1, -1 } };

/* Bytes in @a that parent and child would share, though they must not. */
static size_t to_repair(const struct arena *a)
{
	size_t shared = a->state == ARENA_EMPTY ? 0 : extents_shared_over_fork(a);
	size_t used = (size_t)a->used * ARENA_GRANULE;

	return a->granules && shared > used ? used : shared;
}

static size_t live_bytes(void)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		sum += to_repair(&arenas[i]);
	return sum;
}

static bool make_private_piece(const struct extent *piece, void *arg)
{
	const struct arena *a = arg;
	long map;

	if (!extent_shared_over_fork(piece))
		return true;
	map = sys_mmap(piece->start, piece->len, piece->prot, MAP_PRIVATE | MAP_FIXED, a->fd,
		       piece->start - a->base);
	if (sys_is_error(map))
		return false;
	if (piece->locked)
		sys_call(SYS_mlock, (long)piece->start, (long)piece->len, 0, 0, 0, 0);
	extents_change(piece->start, piece->len, EXTENT_OWN, true);
	return true;
}

/*
 * False when it cannot be done: then nothing is lost, the copy is still
 * possible.
 */
static bool make_private(struct arena *a)
{
	/* The program may have closed a descriptor that it did not know. */
	if (!arena_fd_valid(a) || !extents_each_of(a, make_private_piece, a))
		return false;
	blocks_retire(a);
	stat_add(STAT_ARENAS_RETIRED, 1);
	return true;
}

static bool make_all_private(void)
{
	for (unsigned int i = 0; i < arena_slots; i++)
		if (to_repair(&arenas[i]) && !make_private(&arenas[i]))
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

	/* Without an owner there is neither an arena nor a session. */
	if (!shim.owner || !shim_is_owner())
		return;
	blocks_lock();
	blocks_drain_cache();
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
	if (!blocks_locked_here())
		return;
	if (forking.copy)
		wait_for_copy();
	blocks_unlock();
}

struct shadow {
	const struct extent *piece;
	char *copy;
};

/* The part of a block that lies in the piece. */
static void copy_run(char *at, size_t len, void *arg)
{
	const struct shadow *s = arg;
	char *start = at > s->piece->start ? at : s->piece->start;
	char *end = s->piece->start + s->piece->len;

	if (at + len < end)
		end = at + len;
	if (start < end)
		memcpy(s->copy + (start - s->piece->start), start, (size_t)(end - start));
}

/* Replace a shared mapping by a private one with the same content. */
static void copy_piece(struct arena *a, const struct extent *piece)
{
	long map = sys_mmap(NULL, piece->len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct shadow s = { .piece = piece, .copy = (char *)map };

	if (!sys_is_error(map)) {
		/* The protection is for the program, not for us. */
		if (!(piece->prot & PROT_READ))
			sys_call(SYS_mprotect, (long)piece->start, (long)piece->len, PROT_READ, 0,
				 0, 0);
		if (a->granules)
			blocks_for_each_used(a, copy_run, &s);
		else
			memcpy(s.copy, piece->start, piece->len);
		if (piece->prot != (PROT_READ | PROT_WRITE))
			sys_call(SYS_mprotect, map, (long)piece->len, piece->prot, 0, 0, 0);
		map = sys_call(SYS_mremap, map, (long)piece->len, (long)piece->len,
			       MREMAP_MAYMOVE | MREMAP_FIXED, (long)piece->start, 0);
	}
	if (sys_is_error(map)) {
		/* Better than sharing: only pages neither side has written to
		 * yet can still show what the parent writes. */
		log_line(LOG_WARN, "no memory to copy for a forked child: error %ld", map);
		sys_mmap(piece->start, piece->len, piece->prot, MAP_PRIVATE | MAP_FIXED, a->fd,
			 piece->start - a->base);
	}
}

/* MADV_WIPEONFORK, for good: from here on the kernel does it. */
static void wipe_piece(const struct extent *piece)
{
	sys_mmap(piece->start, piece->len, piece->prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0);
	sys_madvise(piece->start, piece->len, MADV_WIPEONFORK);
}

/* MADV_DONTFORK: the kernel left a hole, where nothing else of the program's
 * must come to lie if it is in the reservation. */
static void fill_hole(const struct extent *piece)
{
	sys_mmap(piece->start, piece->len, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

/* Afterwards the child's piece is what the program believes it to be, so there
 * is nothing left to know about it; but for copy-on-write of the memfd. */
static bool disown_piece(const struct extent *piece, void *arg)
{
	struct arena *a = arg;

	if (piece->dontfork) {
		if (a->granules)
			fill_hole(piece);
	} else if (piece->wipe) {
		wipe_piece(piece);
	} else if (piece->own) {
		return true;
	} else {
		copy_piece(a, piece);
	}
	extents_cut(piece->start, piece->len);
	return true;
}

/* The child keeps the memory it inherited, and nothing else of the parent's. */
static void disown(struct arena *a)
{
	if (a->state == ARENA_EMPTY)
		return;
	if (a->granules && !a->used) {
		blocks_retire(a); /* holds nothing: released */
		return;
	}
	extents_each_of(a, disown_piece, a);
	if (a->granules)
		blocks_retire(a);
	else if (arena_in_use(a))
		a->state = ARENA_RETIRED;
	else
		arena_release(a);
	if (a->state == ARENA_RETIRED && a->fd >= 0) {
		if (arena_fd_valid(a))
			sys_close(a->fd);
		a->fd = -1;
	}
}

void fork_child(void)
{
	if (!blocks_locked_here())
		return;
	blocks_lock_reset();
	blocks_lock();
	shim_child_is_owner();
	session_forget();
	stats_reset();
	close_pipe_end(0);
	blocks_drain_cache(); /* what threads left there since prepare */
	for (unsigned int i = 0; i < arena_slots; i++)
		disown(&arenas[i]);
	if (forking.copy && forking.pipe[1] >= 0)
		sys_call(SYS_write, forking.pipe[1], (long)"", 1, 0, 0, 0);
	close_pipe_end(1);
	blocks_unlock();
}
