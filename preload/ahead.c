/* SPDX-License-Identifier: MIT */
/* ahead.c - see ahead.h. */
#include "ahead.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arena.h"
#include "blocks.h"
#include "config.h"
#include "idle.h"
#include "lock.h"
#include "sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define COLLAPSE_TRIES 3
#define STEP ARENA_ALIGN /* a huge page */
#define LOCK_MS 20

/* Runs that are used, or soon will be, and as many as fit in here. */
struct pieces {
	struct {
		char *at;
		size_t len;
	} list[256];
	unsigned int nr;
	struct memfile file;
	char *base;
	size_t high, arena_len; /* bytes: what was ever used, all there is */
};

static void note_piece(char *at, size_t len, void *arg)
{
	struct pieces *p = arg;

	if (p->nr && p->list[p->nr - 1].at + p->list[p->nr - 1].len == at) {
		p->list[p->nr - 1].len += len;
		return;
	}
	if (p->nr == sizeof(p->list) / sizeof(p->list[0]))
		return;
	p->list[p->nr].at = at;
	p->list[p->nr++].len = len;
}

static bool note_arena(unsigned int slot, struct pieces *p)
{
	struct arena *a = &arenas[slot];

	p->nr = 0;
	p->file.fd = -1;
	p->arena_len = 0;
	if (!blocks_lock_within(LOCK_MS))
		return false;
	if (a->state == ARENA_SHARED && a->granules) {
		p->file = a->file;
		p->base = a->base;
		p->high = a->high * ARENA_GRANULE;
		p->arena_len = a->len;
		blocks_for_each_used(a, note_piece, p);
	}
	blocks_unlock();
	return true;
}

/* What was there already costs nothing. */
static bool populate_step(const struct memfile *f, const char *base, char *at, size_t len)
{
	size_t before, after;

	if (!idle_room(f, len))
		return false;
	before = memfile_resident(f, 0);
	sys_madvise(at, len, MADV_POPULATE_WRITE);
	after = memfile_resident(f, 0);
	idle_note(f, (uint64_t)(at - base), at, len, after > before ? after - before : 0);
	return true;
}

/* Up to @to, as far as there is room: what the next blocks will be made of, so that they are
 * registered when they are asked for, and a server is told of several at once. */
static void populate_next(struct arena *a, const struct memfile *f, char *base, size_t from,
			  size_t to)
{
	if (atomic_load(&a->ahead_to) > from)
		from = atomic_load(&a->ahead_to);
	for (size_t step; from < to; from += step) {
		step = STEP - from % STEP < to - from ? STEP - from % STEP : to - from;
		if (!populate_step(f, base, base + from, step))
			break;
		atomic_store(&a->ahead_to, from + step);
	}
}

static size_t at_most(size_t n, size_t most)
{
	return n < most ? n : most;
}

/* Some is done however late it is: on a busy machine the time is over before it has begun. */
static void populate(const struct pieces *p, long long deadline)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < p->nr; i++)
		for (size_t done = 0, len; done < p->list[i].len; done += len) {
			char *at = p->list[i].at + done;

			len = at_most(STEP - (size_t)at % STEP, p->list[i].len - done);
			if ((sum >= AHEAD_LEAST && sys_now_ms() >= deadline) ||
			    !populate_step(&p->file, p->base, at, len))
				return;
			sum += len;
		}
}

/* ---- huge pages ---- */

static bool all_resident(char *at)
{
	unsigned char vec[STEP / ARENA_GRANULE];

	if (sys_call(SYS_mincore, (long)at, STEP, (long)vec, 0, 0, 0) < 0)
		return false;
	for (size_t i = 0; i < sizeof(vec); i++)
		if (!(vec[i] & 1))
			return false;
	return true;
}

/* Whatever the kernel says to it: huge pages are a gain, not a condition.  It waits for a worker
 * on each processor first, so not while a program waits for a block. */
static bool collapse_step(char *at)
{
	int ret = 0;

	for (int i = 0; i < COLLAPSE_TRIES; i++) {
		ret = sys_madvise(at, STEP, MADV_COLLAPSE);
		if (ret != -EAGAIN)
			break;
	}
	return ret != -EINVAL; /* else this kernel cannot */
}

/*
 * Through a mapping of our own, which lies as huge pages do.  Memory that the kernel has
 * pinned it leaves as it is.
 */
static void collapse(const struct arena_view *v, int fd, long long deadline)
{
	uint64_t skip = (0 - v->offset) & (STEP - 1);
	size_t len = v->len > skip ? (v->len - skip) & ~(STEP - 1) : 0;
	long map;
	char *at;

	if (!len)
		return;
	map = sys_mmap(NULL, len + STEP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		       0);
	if (sys_is_error(map))
		return;
	at = (char *)round_up((size_t)map, STEP);
	if (!sys_is_error(sys_mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
				   (off_t)(v->offset + skip))))
		for (size_t done = 0; done < len && sys_now_ms() < deadline; done += STEP)
			if (all_resident(at + done) && !collapse_step(at + done))
				break;
	sys_munmap((void *)map, len + STEP);
}

static void collapse_slot(unsigned int slot, long long deadline)
{
	struct arena_view v;
	int fd = -1;

	if (!blocks_lock_within(LOCK_MS))
		return;
	arena_view(slot, &v);
	if (v.id && !v.huge && v.len >= STEP)
		fd = memfile_duplicate(&v.file);
	blocks_unlock();
	if (fd < 0)
		return;
	collapse(&v, fd, deadline);
	sys_close(fd);
}

void ahead_prepare(void)
{
	long long deadline = sys_now_ms() + AHEAD_OPEN_MS((long long)config.connect_ms);

	for (unsigned int i = 0; i < arena_slots; i++) {
		struct pieces p;

		if (!note_arena(i, &p))
			continue;
		populate(&p, deadline);
		if (p.arena_len)
			populate_next(&arenas[i], &p.file, p.base, p.high,
				      at_most(p.high + AHEAD_FIRST, p.arena_len));
		collapse_slot(i, deadline);
	}
}

bool ahead_block(void *p, size_t len)
{
	struct arena *a = arena_of(p);
	size_t at = a ? (size_t)((char *)p - a->base) : 0;
	bool there = a && at + len <= atomic_load(&a->ahead_to);

	if (!a || (there && !atomic_load(&a->purged)))
		return false;
	len = round_up(at_most(len, AHEAD_BLOCK), ARENA_GRANULE);
	if (there)
		populate_step(&a->file, a->base, p, len);
	else
		populate_next(a, &a->file, a->base, at, at_most(at + len + AHEAD_NEXT, a->len));
	return true;
}
