/* SPDX-License-Identifier: MIT */
/* scan.c - see scan.h. */
#include "scan.h"

#include <errno.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "maps.h"

struct looking {
	struct scan *scan;
	pid_t pid;
	int pidfd;
};

static bool exited(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

static void finished_one(struct scan *s)
{
	if (--s->pending == 0 && s->done)
		s->done(s, s->done_arg);
}

static void refused(struct scan *s, enum wire_reason why)
{
	s->refused++;
	s->why = why;
}

static void answered(void *arg, void *client, uint32_t seq, int status, enum wire_reason reason,
		     unsigned int index, uint64_t len)
{
	struct scan *s = arg;

	(void)client;
	(void)seq;
	(void)index;
	if (status) {
		s->nr--;
		s->bytes -= len;
		refused(s, reason);
	}
	finished_one(s);
}

/* @req's range is one that no buffer covers yet, or that of a buffer. */
static void use(struct scan *s, const struct buffer_request *req)
{
	enum wire_reason reason = WIRE_OVER_BUDGET;
	bool fits = s->nr < SCAN_BUFFERS_MAX && req->len <= s->max_bytes &&
		    s->bytes <= s->max_bytes - req->len;

	if (fits) {
		s->nr++;
		s->bytes += req->len;
		s->pending++;
		if (buffers_add(s->buffers, req, &reason) == 0)
			return;
		s->pending--;
		s->nr--;
		s->bytes -= req->len;
	}
	refused(s, reason);
}

/* The next part of [@req->offset, @end): a buffer that is there, or a gap. */
static void choose_part(struct scan *s, struct buffer_request *req, uint64_t end)
{
	uint64_t at = req->offset;
	struct buffer_range found;

	req->len = end - at;
	if (req->len > UAPI_SHMEM_BUF_SIZE_MAX)
		req->len = UAPI_SHMEM_BUF_SIZE_MAX;
	if (!buffers_next(s->buffers, req, &found))
		return;
	if (found.offset > at) {
		req->len = found.offset - at;
		return;
	}
	req->offset = found.offset;
	req->len = found.len;
	req->read_only = found.read_only;
}

/*
 * The driver has each page in one buffer, but processes map what parts of a
 * file they like: what a buffer covers already is used as it is, and what lies
 * between becomes buffers of its own.
 */
static void use_range(struct scan *s, const struct buffer_request *range, uint64_t end)
{
	uint64_t at = range->offset;

	while (at < end) {
		struct buffer_request req = *range;
		int kept;

		req.offset = at;
		choose_part(s, &req, end);
		at = req.offset + req.len;
		kept = buffers_keep(s->buffers, &req);
		if (kept == -ENOENT) {
			use(s, &req);
		} else if (kept == 0) {
			s->nr++;
			s->bytes += req.len;
		}
	}
}

static int look_at(const struct maps_entry *e, void *arg)
{
	struct looking *l = arg;
	struct buffer_request req = {
		.offset = e->offset,
		.read_only = !e->writable,
		.client = l->scan,
		.seq = l->scan->round,
		.answer = answered,
		.answer_arg = l->scan,
	};
	uint64_t end = e->offset + (e->end - e->start);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct stat st;

	req.fd = maps_open(l->pid, e);
	if (exited(l->pidfd)) {
		if (req.fd >= 0)
			close(req.fd);
		return -ESRCH;
	}
	/* Gone again, or a file on a disk: nothing to tell anybody. */
	if (req.fd < 0)
		return 0;
	if (fstat(req.fd, &st) == 0) {
		/* There are no pages behind the end of the file. */
		if (end > (uint64_t)st.st_size)
			end = (uint64_t)st.st_size / page * page;
		req.dev = st.st_dev;
		req.ino = st.st_ino;
		use_range(l->scan, &req, end);
	}
	close(req.fd);
	return 0;
}

void scan_begin(struct scan *s, bool fresh)
{
	s->pending++;
	s->fresh = fresh;
	if (!fresh)
		return;
	s->round++;
	s->nr = s->refused = 0;
	s->bytes = 0;
	s->why = WIRE_OK;
}

int scan_process(struct scan *s, pid_t pid, int pidfd)
{
	struct looking l = { s, pid, pidfd };

	return maps_each_shared(pid, look_at, &l);
}

void scan_end(struct scan *s)
{
	if (s->fresh)
		s->pending -= buffers_sweep(s->buffers, s, s->round);
	finished_one(s);
}

void scan_forget(struct scan *s)
{
	buffers_forget_client(s->buffers, s);
	s->pending = s->nr = 0;
	s->bytes = 0;
}
