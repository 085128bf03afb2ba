/* SPDX-License-Identifier: MIT */
/* requests.c - I/O, what the driver must do with it, and buffers that are in use. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "world.h"

/* What is in the arena, so that a byte written where it does not belong is seen. */
static uint8_t arena[NR_PAGES * PAGE];

void remember_arena(void)
{
	memcpy(arena, world->views[IN_ORDER], sizeof(arena));
}

/* The page of the arena that is at @p in one of its views, or the owner's. */
static unsigned int page_at(const struct request *r, const uint8_t *p)
{
	if (r->of_owner)
		return owner_page_at(p);
	for (int v = 0; v < NR_VIEWS; v++) {
		size_t at = (size_t)(p - world->views[v]);

		if (p >= world->views[v] && at < NR_PAGES * PAGE)
			return v == SHUFFLED ? world->order[at / PAGE] : (unsigned int)(at / PAGE);
	}
	wrong("fuzzer: %p is in no view", (const void *)p);
}

/* ---- the model of matching ---- */

struct piece {
	unsigned int page;
	size_t offset, bytes;
};

/* The request in pieces that are in one page each; how many. */
static unsigned int pieces_of(const struct request *r, struct piece *ret)
{
	unsigned int nr = 0;

	for (int i = 0; i < r->nr_iov; i++) {
		const uint8_t *p = r->iov[i].iov_base, *end = p + r->iov[i].iov_len;

		while (p < end) {
			size_t offset = (uintptr_t)p % PAGE, bytes = PAGE - offset;

			if (bytes > (size_t)(end - p))
				bytes = (size_t)(end - p);
			ret[nr++] = (struct piece){ page_at(r, p), offset, bytes };
			p += bytes;
		}
	}
	return nr;
}

#define MAX_PIECES 64U

/* The buffer that has @page, and where. */
static int find_page(const struct device *d, unsigned int page, uint64_t *ret_offset)
{
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		for (unsigned int n = 0; d->buffers[i].used && n < d->buffers[i].nr; n++)
			if (!d->buffers[i].ended && d->buffers[i].pages[n] == page) {
				*ret_offset = n * PAGE;
				return (int)i;
			}
	return -1;
}

/* As the driver lists it: pieces that go on in the same buffer are one segment. 0: copied. */
static unsigned int segments_of(const struct device *d, const struct request *r,
				struct uapi_shmem_seg *ret)
{
	struct piece pieces[MAX_PIECES];
	unsigned int nr = 0, nr_pieces = pieces_of(r, pieces);

	if (!(d->flags & UBLK_F_SHMEM_ZC))
		return 0;
	for (unsigned int i = 0; i < nr_pieces; i++) {
		struct uapi_shmem_seg *last = nr ? &ret[nr - 1] : NULL;
		uint64_t offset = 0;
		int index = find_page(d, pieces[i].page, &offset);

		if (index < 0 || (!r->is_write && d->buffers[index].read_only))
			return 0;
		offset += pieces[i].offset;
		if (last && last->index == index && last->offset + last->len == offset)
			last->len += (uint32_t)pieces[i].bytes;
		else
			ret[nr++] = (struct uapi_shmem_seg){ .offset = offset,
							     .len = (uint32_t)pieces[i].bytes,
							     .index = (uint16_t)index };
	}
	return nr;
}

enum outcome outcome_of(const struct device *d, const struct request *r)
{
	struct uapi_shmem_seg segments[MAX_PIECES];
	unsigned int nr = segments_of(d, r, segments);

	if (nr == 1)
		return MATCHED;
	return nr && d->flags & UAPI_F_SHMEM_SEGS ? LISTED : COPIED;
}

void check_handed(const struct device *d, const struct request *r)
{
	static const char *const names[] = { "copied", "matched", "listed" };
	const struct handed *h = &d->handed[(size_t)r->at / IO_BYTES];
	struct uapi_shmem_seg segments[MAX_PIECES];
	unsigned int nr = segments_of(d, r, segments);
	enum outcome must = outcome_of(d, r);
	enum outcome is = h->op_flags & UAPI_IO_F_SHMEM_ZC     ? MATCHED
			  : h->op_flags & UAPI_IO_F_SHMEM_SEGS ? LISTED
							       : COPIED;

	if (h->at != (uint64_t)r->at || h->bytes != r->bytes)
		wrong("a request of %zu bytes at %lld came as %u bytes at %llu", r->bytes,
		      (long long)r->at, h->bytes, (unsigned long long)h->at);
	if (is != must && r->of_owner) { /* the kernel may have moved the memory */
		check_foreign(r->d);
		nr = segments_of(d, r, segments);
		must = outcome_of(d, r);
	}
	if (is != must)
		wrong("a request was %s, not %s", names[is], names[must]);
	if (must == MATCHED && (uapi_shmem_index(h->addr) != segments[0].index ||
				uapi_shmem_offset(h->addr) != segments[0].offset))
		wrong("matched in buffer %u at %u, not %u at %llu", uapi_shmem_index(h->addr),
		      uapi_shmem_offset(h->addr), segments[0].index,
		      (unsigned long long)segments[0].offset);
	if (must == LISTED && (h->addr != nr || memcmp(h->list, segments, nr * sizeof(*segments))))
		wrong("listed in %llu segments, not the %u that it has",
		      (unsigned long long)h->addr, nr);
	world->nr_requests[is]++;
}

/* ---- requests ---- */

/* @nr sectors of @view, in it from sector @first. */
static struct iovec sectors(enum view view, unsigned int first, unsigned int nr)
{
	return (struct iovec){ world->views[view] + first * 512UL, nr * 512UL };
}

static bool overlaps(const struct request *r)
{
	struct piece p[MAX_PIECES];
	unsigned int nr = pieces_of(r, p);

	for (unsigned int i = 0; i < nr; i++)
		for (unsigned int k = 0; k < i; k++)
			if (p[i].page == p[k].page && p[i].offset < p[k].offset + p[k].bytes &&
			    p[k].offset < p[i].offset + p[i].bytes)
				return true;
	return false;
}

static void add_piece(struct request *r, unsigned int most)
{
	enum view view = below(2) ? IN_ORDER : SHUFFLED;
	unsigned int nr = 1 + (one_in(3) ? below(most * 8) : below(most) * 8 + 7);
	unsigned int first = below(NR_PAGES * 8 - nr);
	int index = find_used(r->d);
	struct iovec *iov = &r->iov[r->nr_iov++];

	if (one_in(2)) /* whole pages */
		first &= ~7U;
	if (index >= 0 && !is_foreign(&r->d->buffers[index]) &&
	    !one_in(3)) { /* in a buffer, or about its end */
		const struct buffer *b = &r->d->buffers[index];
		unsigned int page = below(b->nr), left = (b->nr - page) * 8;

		view = b->view;
		first = (b->first + page) * 8;
		if (!one_in(3) && nr > left)
			nr = left - (one_in(2) ? below(8) : 0);
		if (first + nr > NR_PAGES * 8)
			nr = NR_PAGES * 8 - first;
	}
	*iov = sectors(view, first, nr);
	/* a client's buffer may begin at any multiple of 4 */
	if (one_in(4) && first)
		iov->iov_base = (uint8_t *)iov->iov_base - 4;
	r->bytes += iov->iov_len;
}

/* Anything; @slot of the disk is the request's own. */
static void make_request(struct request *r, struct device *d, unsigned int slot)
{
	unsigned int nr = one_in(2) ? 1 : 1 + below(4);

	*r = (struct request){ .d = d, .is_write = one_in(2) };
	if (!one_in(3) || !make_owner_request(r))
		for (unsigned int i = 0; i < nr; i++)
			add_piece(r, 28 / nr);
	r->at = (off_t)(slot * IO_BYTES) +
		(off_t)below((unsigned int)((IO_BYTES - r->bytes) / 512 + 1)) * 512;
	if (!r->is_write && overlaps(r)) /* what it would leave there nobody knows */
		r->is_write = true;
}

/* Into the arena before a write, so that no write is like another. */
static void fill_pieces(const struct request *r)
{
	if (r->of_owner) {
		fill_owner(r);
		return;
	}
	for (int i = 0; i < r->nr_iov; i++)
		for (size_t n = 0; n + 4 <= r->iov[i].iov_len; n += 4)
			*(uint32_t *)((uint8_t *)r->iov[i].iov_base + n) = (uint32_t)draw();
	remember_arena();
}

static void *issue(void *arg)
{
	struct request *r = arg;

	if (r->of_owner) {
		issue_of_owner(r);
		return NULL;
	}
	r->result = r->is_write ? pwritev(r->d->disk_fd, r->iov, r->nr_iov, r->at)
				: preadv(r->d->disk_fd, r->iov, r->nr_iov, r->at);
	if (r->result < 0)
		r->result = -errno;
	return NULL;
}

/* The data is where it belongs, and nothing else has changed. */
static void check_data(const struct request *r)
{
	const uint8_t *disk = r->d->disk + r->at;
	struct piece p[MAX_PIECES];
	unsigned int nr = pieces_of(r, p);

	for (unsigned int i = 0; i < nr; i++) {
		uint8_t *known = arena + p[i].page * PAGE + p[i].offset;

		if (!r->is_write)
			memcpy(known, disk, p[i].bytes);
		else if (memcmp(known, disk, p[i].bytes) != 0)
			wrong("a write left wrong data on the disk (piece %u)", i);
		disk += p[i].bytes;
	}
	for (unsigned int i = 0; i < NR_PAGES; i++)
		if (memcmp(arena + i * PAGE, world->views[IN_ORDER] + i * PAGE, PAGE) != 0)
			wrong("page %u of the arena is not what it must be after a %s", i,
			      r->is_write ? "write" : "read");
}

static void check_request(const struct request *r)
{
	if (r->result != (ssize_t)r->bytes)
		wrong("a %s of %zu bytes returned %zd", r->is_write ? "write" : "read", r->bytes,
		      r->result);
	check_handed(r->d, r);
	if (r->of_owner)
		check_owner(r);
	else
		check_data(r);
}

static void trace_request(const struct request *r)
{
	trace("%s%s of %zu bytes in %d at %lld", r->of_owner ? "the owner's " : "",
	      r->is_write ? "write" : "read", r->bytes, r->nr_iov, (long long)r->at);
}

const struct request *request_somewhere(struct device *d)
{
	static struct request r;

	make_request(&r, d, below(NR_SLOTS - 1));
	trace_request(&r);
	fill_pieces(&r);
	issue(&r);
	check_request(&r);
	return &r;
}

void step_request(struct device *d)
{
	if (d->life == LIVE)
		request_somewhere(d);
}

/* ---- buffers in use ---- */

struct unregistration {
	struct device *d;
	unsigned int index;
	atomic_bool done;
	int result;
	pthread_t thread;
};

static void *unregister(void *arg)
{
	struct unregistration *u = arg;

	u->result = command(u->d, UBLK_U_CMD_UNREG_BUF, NULL, 0, u->index);
	u->done = true;
	return NULL;
}

static void hold(struct request *r)
{
	fill_pieces(r);
	r->d->hold = true;
	pthread_create(&r->thread, NULL, issue, r);
	while (!r->d->nr_held)
		usleep(500);
}

static void release(struct request *r)
{
	r->d->hold = false;
	pthread_join(r->thread, NULL);
}

/* A buffer that is in use goes when it is no more in use, and nothing else waits for that. */
void step_unregister_held(struct device *d)
{
	struct unregistration u = { .d = d };
	struct request r, other;
	int index = find_used(d);
	struct buffer *b = &d->buffers[index < 0 ? 0 : index];

	/* one request waits, another must have a tag beside it, from whichever queue */
	if (d->life != LIVE || index < 0 || b->read_only || is_foreign(b) || d->depth < 2 ||
	    !world->ours)
		return;
	r = (struct request){ .d = d, .nr_iov = 1, .at = HELD_SLOT * IO_BYTES, .bytes = PAGE };
	r.iov[0] = sectors(IN_ORDER, b->pages[below(b->nr)] * 8, 8);
	trace("unregister %d while a request is in it", index);
	u.index = (unsigned int)index;
	hold(&r);
	pthread_create(&u.thread, NULL, unregister, &u);
	/* no request matches any more: then it waits */
	other = r;
	other.at = 0;
	other.is_write = true;
	for (int i = 0;; i++) {
		issue(&other);
		if (other.result != PAGE)
			wrong("a write beside it returned %zd", other.result);
		if (!(d->handed[0].op_flags & UAPI_IO_F_SHMEM_ZC))
			break;
		if (u.done || i > 20000)
			wrong("UNREG_BUF of a buffer in use: %s, %d",
			      u.done ? "it ended" : "it does not begin", u.result);
		usleep(500);
	}
	if (u.done)
		wrong("UNREG_BUF returned %d while a request was in the buffer", u.result);
	/* and the request's own page, as any direct I/O */
	if ((unsigned long)pinned_pages() != nr_registered_pages() + 1)
		wrong("%ld pages are pinned, not %lu, while a buffer is in use", pinned_pages(),
		      nr_registered_pages() + 1);
	release(&r);
	pthread_join(u.thread, NULL);
	expect(u.result, 0, "UNREG_BUF of a buffer that was in use");
	check_request(&r);
	forget_buffer(d, u.index);
}

/* The server dies with a request; buffers change; the request is looked up anew, or fails. */
void step_kill_held(struct device *d)
{
	bool waits = d->flags & UBLK_F_USER_RECOVERY;
	struct request r;

	if (d->life != LIVE || (!world->ours && waits && d->flags & UBLK_F_SHMEM_ZC))
		return;
	make_request(&r, d, HELD_SLOT);
	trace("kill the server with a request of %zu bytes in %d", r.bytes, r.nr_iov);
	hold(&r);
	kill_server(d);
	d->hold = false;
	if (!waits) {
		pthread_join(r.thread, NULL);
		expect((int)r.result, -EIO, "a request of a server that died");
		return;
	}
	for (unsigned int i = below(3); i; i--)
		one_in(2) ? step_register(d) : step_unregister(d);
	if (one_in(4)) { /* never recovered */
		trace("stop it with that request");
		expect(command(d, UBLK_U_CMD_STOP_DEV, NULL, 0, 0), 0, "STOP_DEV");
		d->life = SPENT;
		pthread_join(r.thread, NULL);
		expect((int)r.result, -EIO, "a request of a device that was stopped");
		return;
	}
	begin_recovery(d);
	if (one_in(3)) {
		trace("a successor that dies");
		spawn_server(d, below(d->depth * d->nr_queues));
		reap_server(d);
		begin_recovery(d);
	}
	if (one_in(2))
		step_register(d);
	spawn_server(d, d->depth * d->nr_queues);
	end_recovery(d);
	pthread_join(r.thread, NULL);
	if (d->flags & UBLK_F_USER_RECOVERY_REISSUE)
		check_request(&r);
	else
		expect((int)r.result, -EIO, "a request without REISSUE");
}
