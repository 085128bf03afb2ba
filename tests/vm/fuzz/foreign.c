/* SPDX-License-Identifier: MIT */
/*
 * foreign.c - a process with private memory, which is registered where it is: what it does with
 * that memory, what ends by it, and its requests.
 *
 * Its pages have the numbers that follow those of the arena.  In the model each is a hole, empty,
 * shared with a child (or was, and nobody has written to it since), or the process's own alone:
 * only such pages are registered.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/vm/abi/peer.h"
#include "world.h"

#define NR_OWNERS 3U /* one after the other */
#define OWNER_BYTES (OWNER_PAGES * PAGE)
#define OWNER_SECTORS (OWNER_PAGES * 8)
#define SHMEM_FOREIGN UAPI_SHMEM_BUF_FOREIGN

enum owned { HOLE, EMPTY, SHARED, OWN };

struct memory {
	enum owned pages[OWNER_PAGES];
	uint8_t bytes[OWNER_SECTORS]; /* what each sector is full of */
};

static struct peer *owners[NR_OWNERS];
static unsigned int at_owner;
static struct memory own, childs;
static bool has_child, has_moved;

/* ---- the process ---- */

/* That may end a buffer at any time, and nobody is to blame. */
static unsigned long long pages_moved(void)
{
	unsigned long long n, nr = 0;
	FILE *f = fopen("/proc/vmstat", "r");
	char name[64];

	while (f && fscanf(f, "%63s %llu", name, &n) == 2)
		if (strncmp(name, "pgmigrate_", 10) == 0 || strcmp(name, "numa_pte_updates") == 0 ||
		    strcmp(name, "pswpout") == 0)
			nr += n;
	if (f)
		fclose(f);
	return nr;
}

static bool something_moved(void)
{
	static unsigned long long before;
	unsigned long long now = pages_moved();
	bool moved = now != before;

	before = now;
	return moved;
}

void make_owners(void)
{
	something_moved();
	for (unsigned int i = 0; world->features & UAPI_F_SHMEM_FOREIGN && i < NR_OWNERS; i++)
		owners[i] = peer_start();
}

void end_owners(void)
{
	for (; at_owner < NR_OWNERS && owners[at_owner]; at_owner++)
		peer_end(owners[at_owner]);
}

static void map_owner(struct peer *p)
{
	if (peer_do(p, PEER_MAP, 0, OWNER_BYTES))
		wrong("the owner has no memory");
	memset(own.bytes, 0, sizeof(own.bytes));
	for (unsigned int i = 0; i < OWNER_PAGES; i++)
		own.pages[i] = OWN;
	has_moved = false;
}

/* NULL: none is left. */
static struct peer *owner(void)
{
	struct peer *p = at_owner < NR_OWNERS ? owners[at_owner] : NULL;

	if (p && !p->mem)
		map_owner(p);
	return p;
}

static void do_owner(enum peer_op op, unsigned int first, unsigned int nr, uint8_t value)
{
	long ret = peer_with(owner(), op, first * PAGE, nr * PAGE, value);

	if (ret)
		wrong("the owner's operation %d: %ld", op, ret);
}

/* Sectors that are full of the same are looked at together. */
static void check_memory(enum peer_op op, const struct memory *m)
{
	unsigned int from = 0, to;

	for (; from < OWNER_SECTORS; from = to) {
		to = from + 1;
		if (m->pages[from / 8] == HOLE)
			continue;
		while (to < OWNER_SECTORS && m->pages[to / 8] != HOLE &&
		       m->bytes[to] == m->bytes[from])
			to++;
		if (peer_with(owner(), op, from * 512UL, (to - from) * 512UL, m->bytes[from]) != 1)
			wrong("sectors %u to %u of the %s are not all %#x", from, to - 1,
			      op == PEER_SAME ? "owner" : "owner's child", m->bytes[from]);
	}
}

static void check_memories(void)
{
	check_memory(PEER_SAME, &own);
	if (has_child)
		check_memory(PEER_CHILD_SAME, &childs);
}

static bool has_hole(const struct memory *m, unsigned int first, unsigned int nr)
{
	for (unsigned int i = first; i < first + nr; i++)
		if (m->pages[i] == HOLE)
			return true;
	return false;
}

/* ---- what has ended ---- */

static uint32_t flags_of(struct device *d, unsigned int index)
{
	struct uapi_shmem_buf_info info = { 0 };

	expect(command(d, UAPI_CMD_LIST_BUFS, &info, sizeof(info), index), 1, "LIST_BUFS");
	expect((int)info.index, (int)index, "LIST_BUFS of one");
	return info.flags;
}

static void check_buffer(struct device *d, unsigned int index)
{
	struct buffer *b = &d->buffers[index];
	uint32_t flags = flags_of(d, index);

	if (!b->ended && flags & UAPI_SHMEM_BUF_ENDED && something_moved()) {
		b->ended = true;
		world->nr_moved++;
	}
	for (int i = 0; b->ended && flags & UAPI_SHMEM_BUF_DYING && i < 10000; i++) {
		usleep(1000);
		flags = flags_of(d, index);
	}
	if (flags != (SHMEM_FOREIGN | (b->ended ? UAPI_SHMEM_BUF_ENDED : 0)))
		wrong("buffer %u has flags %x and %s", index, flags,
		      b->ended ? "has ended" : "has not ended");
}

void check_foreign(struct device *d)
{
	for (unsigned int i = 0; d->life != NONE && i < NR_BUFFERS; i++)
		if (d->buffers[i].used && is_foreign(&d->buffers[i]))
			check_buffer(d, i);
}

/* On whatever device. */
static void end_buffers(unsigned int first, unsigned int nr)
{
	for (unsigned int k = 0; k < NR_DEVICES * NR_BUFFERS; k++) {
		struct buffer *b = &world->devices[k / NR_BUFFERS].buffers[k % NR_BUFFERS];
		unsigned int at = b->pages[0] - NR_PAGES;

		if (b->used && is_foreign(b) && first < at + b->nr && at < first + nr)
			b->ended = true;
	}
}

/* ---- registering ---- */

/* One that is still there, or -1. */
static int find_foreign(const struct device *d)
{
	for (int i = 0; i < (int)NR_BUFFERS; i++)
		if (d->buffers[i].used && is_foreign(&d->buffers[i]) && !d->buffers[i].ended)
			return i;
	return -1;
}

static int must_answer(const struct device *d, unsigned int first, unsigned int nr)
{
	if (!(d->flags & UAPI_F_SHMEM_FOREIGN))
		return -EOPNOTSUPP;
	if (has_hole(&own, first, nr))
		return -EINVAL;
	for (unsigned int i = first; i < first + nr; i++)
		if (own.pages[i] != OWN)
			return -ENODATA;
	for (unsigned int i = 0; i < NR_BUFFERS; i++) {
		const struct buffer *b = &d->buffers[i];
		unsigned int at = b->pages[0] - NR_PAGES;

		if (b->used && is_foreign(b) && !b->ended && first < at + b->nr && at < first + nr)
			return -EEXIST;
	}
	for (int i = 0;; i++)
		if (!d->buffers[i].used)
			return i;
}

static void fill(unsigned int first, unsigned int nr)
{
	uint8_t value = (uint8_t)draw();

	do_owner(PEER_FILL, first, nr, value);
	memset(own.bytes + first * 8UL, value, nr * 8UL);
	for (unsigned int i = first; i < first + nr; i++)
		own.pages[i] = OWN;
}

/* Some index that another buffer then gets, and all that is to be in it is there. */
static void make_room(struct device *d, unsigned int first, unsigned int nr)
{
	for (unsigned int i = 0; i < NR_BUFFERS; i++) {
		if (!d->buffers[i].used || !is_foreign(&d->buffers[i]) || one_in(3))
			continue;
		trace("unregister %u", i);
		expect(command(d, UBLK_U_CMD_UNREG_BUF, NULL, 0, i), 0, "UNREG_BUF");
		forget_buffer(d, i);
	}
	if (!has_hole(&own, first, nr))
		fill(first, nr);
}

void step_register_foreign(struct device *d)
{
	unsigned int first = below(OWNER_PAGES), nr = 1 + below(OWNER_PAGES - first);
	struct uapi_shmem_foreign_reg reg = { .len = nr * PAGE, .event_fd = -1 };
	int must, is;

	if (d->life == NONE || !owner())
		return;
	if (one_in(2))
		make_room(d, first, nr);
	check_foreign(d); /* which are still there */
	must = must_answer(d, first, nr);
	trace("register %u pages from %u of the owner: %d", nr, first, must);
	reg.addr = (uintptr_t)owner()->mem + first * PAGE;
	reg.pid = (uint32_t)owner()->pid;
	if (must >= 0) { /* requests may come before the answer does */
		struct buffer *b = &d->buffers[must];

		b->read_only = b->ended = false;
		b->pid = reg.pid;
		b->nr = nr;
		for (unsigned int i = 0; i < nr; i++)
			b->pages[i] = NR_PAGES + first + i;
		b->used = true;
	}
	do
		is = command(d, UAPI_CMD_REG_FOREIGN, &reg, sizeof(reg), 0);
	while (is != must && (is == -EAGAIN || is == -ENODATA) && something_moved());
	expect(is, must, "REG_FOREIGN");
	if (d->life == LIVE && one_in(2)) /* before it is gone again */
		request_somewhere(d);
}

/* ---- what the process does with its memory ---- */

static void lose(unsigned int first, unsigned int nr, bool unmap)
{
	do_owner(unmap ? PEER_UNMAP : PEER_DISCARD, first, nr, 0);
	memset(own.bytes + first * 8UL, 0, nr * 8UL);
	for (unsigned int i = first; i < first + nr; i++)
		own.pages[i] = unmap ? HOLE : EMPTY;
	end_buffers(first, nr);
}

static void move_all(void)
{
	do_owner(PEER_MOVE, 0, OWNER_PAGES, 0);
	has_moved = true;
	end_buffers(0, OWNER_PAGES);
}

static void map_anew(void)
{
	do_owner(PEER_UNMAP, 0, OWNER_PAGES, 0);
	end_buffers(0, OWNER_PAGES);
	map_owner(owner());
}

static void fork_it(void)
{
	do_owner(PEER_FORK, 0, 0, 0);
	has_child = true;
	for (unsigned int i = 0; i < OWNER_PAGES; i++)
		if (own.pages[i] == OWN)
			own.pages[i] = SHARED;
	childs = own;
	end_buffers(0, OWNER_PAGES);
}

static void end_child(void)
{
	do_owner(PEER_END_CHILD, 0, 0, 0);
	has_child = false;
}

static void fill_child(unsigned int first, unsigned int nr)
{
	uint8_t value = (uint8_t)draw();

	if (has_hole(&childs, first, nr))
		return;
	do_owner(PEER_CHILD_FILL, first, nr, value);
	memset(childs.bytes + first * 8UL, value, nr * 8UL);
}

static void end_owner(void)
{
	peer_end(owners[at_owner++]);
	has_child = false;
	end_buffers(0, OWNER_PAGES);
}

void step_change_foreign(struct device *d)
{
	unsigned int first = below(OWNER_PAGES);
	unsigned int nr = 1 + below(one_in(3) ? OWNER_PAGES - first : 1);
	unsigned int what = below(16);
	bool whole;

	if (!owner())
		return;
	whole = !has_hole(&own, 0, OWNER_PAGES);
	trace("the owner's pages, %u from %u: %u%s", nr, first, what, has_child ? ", a child" : "");
	if (what < 4 && !has_hole(&own, first, nr))
		fill(first, nr);
	else if (what < 6 && !has_hole(&own, first, nr))
		lose(first, nr, false);
	else if (what == 6)
		lose(first, nr, true);
	else if (what == 7 && whole && !has_child) /* a child's are where its parent's are */
		move_all();
	else if ((what == 8 || (what < 10 && !whole)) && !has_child)
		map_anew();
	else if (what == 10 && whole)
		do_owner(PEER_PROTECT, 0, OWNER_PAGES, 0);
	else if (what < 13 && !has_child)
		fork_it();
	else if (what < 14 && has_child)
		end_child();
	else if (what == 14 && has_child)
		fill_child(first, nr);
	else if (what == 15 && one_in(2))
		end_owner();
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		check_foreign(&world->devices[i]);
	if (owner())
		check_memories();
	(void)d;
}

/* ---- its requests ---- */

unsigned int owner_page_at(const uint8_t *p)
{
	return NR_PAGES + (unsigned int)((size_t)(p - owner()->mem) / PAGE);
}

static size_t place_of(const struct request *r)
{
	return (size_t)((uint8_t *)r->iov[0].iov_base - owner()->mem);
}

bool make_owner_request(struct request *r)
{
	unsigned int first = below(OWNER_SECTORS), nr = 1 + below(64);
	int index = find_foreign(r->d);

	if (!owner())
		return false;
	if (index >= 0 && !one_in(3)) { /* in it, or over its end */
		const struct buffer *b = &r->d->buffers[index];

		first = (b->pages[below(b->nr)] - NR_PAGES) * 8 + first % 8;
		nr = 1 + below((b->pages[0] - NR_PAGES + b->nr) * 8 - first + one_in(6) * 8);
	}
	if (one_in(2)) /* whole pages */
		first &= ~7U;
	if (nr > OWNER_SECTORS - first)
		nr = OWNER_SECTORS - first;
	if (has_hole(&own, first / 8, (first + nr - 1) / 8 - first / 8 + 1))
		return false;
	r->of_owner = true;
	r->nr_iov = 1;
	r->iov[0] = (struct iovec){ owner()->mem + first * 512UL, nr * 512UL };
	r->bytes = nr * 512UL;
	return true;
}

/* Before it: what is written, or read. */
void fill_owner(const struct request *r)
{
	size_t at = place_of(r);
	uint8_t value = (uint8_t)draw();

	if (!r->is_write) {
		memset(r->d->disk + r->at, value, r->bytes);
		return;
	}
	if (peer_with(owner(), PEER_FILL, at, r->bytes, value))
		wrong("the owner cannot fill its memory");
	memset(own.bytes + at / 512, value, r->bytes / 512);
	for (size_t page = at / PAGE; page <= (at + r->bytes - 1) / PAGE; page++)
		own.pages[page] = OWN;
}

void issue_of_owner(struct request *r)
{
	struct peer *p = owner();
	size_t at = place_of(r);

	if (peer_do(p, PEER_OPEN, r->d->number, 0))
		wrong("the owner cannot open the disk");
	p->disk_at = r->at;
	r->result = peer_do(p, r->is_write ? PEER_WRITE : PEER_READ, at, r->bytes);
	peer_do(p, PEER_CLOSE, 0, 0);
	/* the kernel has it written to, even if nothing has come */
	for (size_t page = at / PAGE; !r->is_write && page <= (at + r->bytes - 1) / PAGE; page++)
		own.pages[page] = OWN;
}

static void note_read(const struct request *r)
{
	memset(own.bytes + place_of(r) / 512, r->d->disk[r->at], r->bytes / 512);
}

void check_owner(const struct request *r)
{
	const uint8_t *disk = r->d->disk + r->at;

	if (!r->is_write)
		note_read(r);
	else if (disk[0] != own.bytes[place_of(r) / 512] || memcmp(disk, disk + 1, r->bytes - 1))
		wrong("the owner's write left wrong data on the disk");
	check_memories();
}

/* ---- its memory goes while a request is in it ---- */

static void begin_held(struct request *r)
{
	struct peer *p = owner();

	fill_owner(r);
	if (peer_do(p, PEER_OPEN, r->d->number, 0))
		wrong("the owner cannot open the disk");
	p->disk_at = r->at;
	r->d->hold = true;
	peer_do(p, PEER_BEGIN_READ, place_of(r), r->bytes);
	while (!r->d->nr_held)
		usleep(500);
}

static void end_held(struct request *r, bool memory_is_there)
{
	r->d->hold = false;
	expect((int)peer_do(owner(), PEER_END_READ, 0, 0), (int)r->bytes,
	       "a request whose memory changed");
	peer_do(owner(), PEER_CLOSE, 0, 0);
	if (memory_is_there)
		note_read(r);
}

/* The process waits for its request, which is served as if nothing were. */
static void end_owner_held(struct request *r)
{
	kill(owner()->pid, SIGKILL);
	usleep(below(30) * 1000);
	r->d->hold = false;
	end_owner();
}

static void change_held(struct request *r, const struct buffer *b, unsigned int what)
{
	unsigned int first = b->pages[0] - NR_PAGES;

	if (what == 0) {
		end_owner_held(r);
		return;
	}
	if (what == 1 && !has_child)
		fork_it();
	else if (what == 2 && !has_child && !has_hole(&own, 0, OWNER_PAGES)) {
		size_t at = place_of(r);

		move_all(); /* and the request's data with it */
		r->iov[0].iov_base = owner()->mem + at;
	} else
		lose(first, b->nr, what == 3);
	if (flags_of(r->d, (unsigned int)(b - r->d->buffers)) !=
	    (SHMEM_FOREIGN | UAPI_SHMEM_BUF_ENDED | UAPI_SHMEM_BUF_DYING))
		wrong("a buffer with a request in it has gone, or has not ended");
	/* a fork copies the pages of requests at once, so that they stay the parent's */
	end_held(r, own.pages[first] == OWN || own.pages[first] == SHARED);
}

void step_change_held(struct device *d)
{
	unsigned int page, nr, what = below(6);
	struct buffer *b;
	struct request r;
	int index;

	if (d->life != LIVE || !(d->flags & UAPI_F_SHMEM_FOREIGN))
		return;
	if (find_foreign(d) < 0)
		step_register_foreign(d);
	check_foreign(d);
	index = find_foreign(d);
	if (index < 0)
		return;
	b = &d->buffers[index];
	page = below(b->nr);
	nr = 1 + below(b->nr - page);
	r = (struct request){ .d = d, .of_owner = true, .nr_iov = 1, .bytes = nr * PAGE };
	r.at = HELD_SLOT * IO_BYTES;
	r.iov[0] = (struct iovec){ owner()->mem + (b->pages[page] - NR_PAGES) * PAGE, r.bytes };
	trace("change %d with a request of %u pages in it: %u", index, nr, what);
	begin_held(&r);
	change_held(&r, b, what);
	if (!(d->handed[HELD_SLOT].op_flags & UAPI_IO_F_SHMEM_ZC) ||
	    uapi_shmem_index(d->handed[HELD_SLOT].addr) != (unsigned int)index ||
	    uapi_shmem_offset(d->handed[HELD_SLOT].addr) != page * PAGE)
		wrong("the owner's request was not in its buffer");
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		check_foreign(&world->devices[i]);
	if (!owner())
		return;
	check_memories();
	for (unsigned int i = 0; i < OWNER_PAGES; i++) /* what is whose after that fork? */
		if (own.pages[i] == SHARED)
			fill(i, 1);
}

/* ---- hints ---- */

/* A request that was copied is among the hints, and no other. */
static void check_hints(const struct request *r, const struct uapi_shmem_hint *hints, int nr)
{
	uint64_t bytes = 0;

	if (outcome_of(r->d, r) != COPIED) {
		expect(nr, 0, "hints after a request that matched");
		return;
	}
	for (int i = 0; i < nr; i++) {
		bytes += (uint64_t)hints[i].len * hints[i].nr;
		if (hints[i].flags != (r->of_owner ? UAPI_HINT_PRIVATE : UAPI_HINT_FILE) ||
		    (hints[i].pid &&
		     (pid_t)hints[i].pid != (r->of_owner ? owner()->pid : getpid())))
			wrong("a hint of pid %u, flags %x", hints[i].pid, hints[i].flags);
	}
	/* others are in pieces, of which some may get lost */
	if (r->of_owner && !has_moved &&
	    (nr != 1 || hints[0].addr != (uintptr_t)r->iov[0].iov_base || bytes != r->bytes))
		wrong("%d hints, of %llx, %llu bytes", nr, (unsigned long long)hints[0].addr,
		      (unsigned long long)bytes);
	if (!bytes || bytes > r->bytes)
		wrong("hints of %llu bytes, not %zu", (unsigned long long)bytes, r->bytes);
}

void step_hints(struct device *d)
{
	static struct uapi_shmem_hint hints[1024];
	uint64_t seconds = below(3) ? 3600 : 0;
	const struct request *r;
	int ret;

	if (d->life == NONE)
		return;
	trace("hints for %llu seconds", (unsigned long long)seconds);
	ret = command(d, UAPI_CMD_HINTS, hints, sizeof(hints), seconds);
	if (!(d->flags & UAPI_F_SHMEM_HINTS)) {
		expect(ret, -EOPNOTSUPP, "HINTS without the flag");
		return;
	}
	if (ret < 0)
		wrong("HINTS: %d", ret);
	if (!seconds || d->life != LIVE)
		return;
	r = request_somewhere(d);
	check_hints(r, hints, command(d, UAPI_CMD_HINTS, hints, sizeof(hints), 0));
}
