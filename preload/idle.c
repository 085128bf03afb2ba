/* SPDX-License-Identifier: MIT */
/*
 * idle.c - see idle.h.
 *
 * A piece is looked at through a few of its pages, and by system calls: who asks for a block
 * may have it protected meanwhile.
 */
#include "idle.h"

#include <stdatomic.h>
#include <sys/syscall.h>

#include "arena.h"
#include "blocks.h"
#include "sys.h"

#define PIECES 64U
#define PIECE_MAX (2UL << 20) /* bytes; neighbours are joined up to that */
#define STRIDE (64UL << 10)   /* of which one page is looked at */
#define LOOK_MS 10	      /* between looks at all of them */

enum { UNUSED_PIECE, TAKEN, READY };

static struct piece {
	atomic_int state;
	struct memfile file;
	uint64_t offset;
	char *at;
	size_t len;
	size_t made; /* bytes that were populated in it; the others were there */
	size_t idle; /* of them, those that still seem to be */
} pieces[PIECES];

static atomic_size_t idle_bytes;

static bool take(struct piece *p, int from)
{
	return atomic_load_explicit(&p->state, memory_order_relaxed) == from &&
	       atomic_compare_exchange_strong(&p->state, &from, TAKEN);
}

static void leave(struct piece *p, int as)
{
	atomic_store(&p->state, as);
}

/* Something is in the page at @within, or it has been given back. */
static bool page_is_used(const struct piece *p, size_t within)
{
	uint64_t words[8] = { 0 };
	unsigned char there = 0;

	if (sys_call(SYS_mincore, (long)(p->at + within), ARENA_GRANULE, (long)&there, 0, 0, 0) <
		    0 ||
	    !(there & 1))
		return true;
	sys_call(SYS_pread64, p->file.fd, (long)words, sizeof(words), (long)(p->offset + within), 0,
		 0);
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (words[i])
			return true;
	return false;
}

static size_t still_idle(const struct piece *p)
{
	size_t seen = 0, used = 0;

	if (!memfile_valid(&p->file))
		return 0;
	/* The last page of each stride: buffers are filled from their beginning on. */
	for (size_t at = 0; at < p->len; at += STRIDE) {
		size_t end = at + STRIDE < p->len ? at + STRIDE : p->len;

		seen++;
		used += page_is_used(p, end - ARENA_GRANULE);
	}
	return seen ? p->made * (seen - used) / seen : 0;
}

static void look(void)
{
	for (unsigned int i = 0; i < PIECES; i++) {
		struct piece *p = &pieces[i];
		size_t left;

		if (!take(p, READY))
			continue;
		left = still_idle(p);
		left = left < p->idle ? left : p->idle;
		atomic_fetch_sub(&idle_bytes, p->idle - left);
		p->idle = left;
		leave(p, left ? READY : UNUSED_PIECE);
	}
}

static bool fits(const struct memfile *f, size_t len)
{
	size_t free_bytes = blocks_free_bytes();
	size_t most = IDLE_BYTES + memfile_resident(f, 0) / 16;

	most -= free_bytes < IDLE_FREE ? free_bytes : IDLE_FREE;
	return atomic_load(&idle_bytes) + len <= most;
}

bool idle_room(const struct memfile *f, size_t len)
{
	static _Atomic long long looked_at;
	long long now;

	if (fits(f, len))
		return true;
	now = sys_now_ms();
	if (now - atomic_load(&looked_at) < LOOK_MS)
		return false;
	atomic_store(&looked_at, now);
	look();
	return fits(f, len);
}

/* ---- noting ---- */

static bool is_of(const struct piece *p, const struct memfile *f)
{
	return p->file.ino == f->ino && p->file.dev == f->dev && p->file.fd == f->fd;
}

static bool joined(struct piece *p, const struct memfile *f, const char *at, size_t len,
		   size_t made)
{
	bool joins;

	if (!take(p, READY))
		return false;
	joins = is_of(p, f) && p->at + p->len == at && p->len + len <= PIECE_MAX;
	if (joins) {
		p->len += len;
		p->made += made;
		p->idle += made;
	}
	leave(p, READY);
	return joins;
}

/* Without a place it counts as idle for ever. */
void idle_note(const struct memfile *f, uint64_t offset, char *at, size_t len, size_t made)
{
	if (!made)
		return;
	atomic_fetch_add(&idle_bytes, made);
	for (unsigned int i = 0; i < PIECES; i++)
		if (joined(&pieces[i], f, at, len, made))
			return;
	for (unsigned int i = 0; i < PIECES; i++) {
		struct piece *p = &pieces[i];

		if (!take(p, UNUSED_PIECE))
			continue;
		p->file = *f;
		p->offset = offset;
		p->at = at;
		p->len = len;
		p->made = p->idle = made;
		leave(p, READY);
		return;
	}
}
