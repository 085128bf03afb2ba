/* SPDX-License-Identifier: MIT */
/* scan.c - see scan.h. */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/life/worker.h"
#include "maps.h"
#include "memory_fs.h"

/* ---- looking, on any thread ---- */

struct looking {
	struct scan_found *found;
	struct memory_fs fs;
	pid_t pid;
	int pidfd;
};

static bool exited(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

static const struct scan_range *find_file(const struct scan_found *f, dev_t dev, ino_t ino)
{
	for (unsigned int i = 0; i < f->nr; i++)
		if (f->ranges[i].dev == dev && f->ranges[i].ino == ino && f->ranges[i].fd >= 0)
			return &f->ranges[i];
	return NULL;
}

static bool is_known(const struct scan_found *f, const struct scan_range *r)
{
	for (unsigned int i = 0; i < f->nr; i++)
		if (f->ranges[i].dev == r->dev && f->ranges[i].ino == r->ino &&
		    f->ranges[i].offset == r->offset && f->ranges[i].len == r->len &&
		    f->ranges[i].read_only == r->read_only)
			return true;
	return false;
}

/* There are no pages behind the end of the file. */
static bool cut(struct scan_range *r, int fd)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct stat st;
	uint64_t size;

	if (fstat(fd, &st) < 0)
		return false;
	size = (uint64_t)st.st_size / page * page;
	if (r->offset >= size)
		return false;
	if (r->len > size - r->offset)
		r->len = size - r->offset;
	return true;
}

static int look_at(const struct maps_entry *e, void *arg)
{
	struct looking *l = arg;
	struct scan_found *f = l->found;
	struct scan_range r = {
		.fd = -1,
		.dev = e->dev,
		.ino = e->ino,
		.offset = e->offset,
		.len = e->end - e->start,
		.read_only = !e->writable,
	};
	const struct scan_range *file;

	if (!memory_fs_has(&l->fs, e->dev) || is_known(f, &r))
		return 0;
	if (f->nr == SCAN_RANGES_MAX) {
		f->left_out++;
		return 0;
	}
	file = find_file(f, e->dev, e->ino);
	if (!file)
		r.fd = maps_open(l->pid, e);
	if (exited(l->pidfd)) {
		if (r.fd >= 0)
			close(r.fd);
		return -ESRCH;
	}
	/* Gone again: nothing to tell anybody. */
	if (!file && r.fd < 0)
		return 0;
	if (cut(&r, file ? file->fd : r.fd) && !is_known(f, &r))
		f->ranges[f->nr++] = r;
	else if (r.fd >= 0)
		close(r.fd);
	return 0;
}

void scan_close(struct scan_found *f)
{
	for (unsigned int i = 0; i < f->nr; i++)
		if (f->ranges[i].fd >= 0)
			close(f->ranges[i].fd);
	f->nr = f->left_out = 0;
}

int scan_look(struct scan_found *f, pid_t pid, int pidfd)
{
	struct looking l = { .found = f, .pid = pid, .pidfd = pidfd };

	memory_fs_read(&l.fs, pid);
	return maps_each_shared(pid, look_at, &l);
}

/* ---- wanting ---- */

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
		     uint32_t number)
{
	struct scan *s = arg;

	(void)client;
	(void)seq;
	(void)number;
	if (status) {
		s->nr--;
		refused(s, reason);
	}
	finished_one(s);
}

static void want(struct scan *s, const struct buffer_request *req)
{
	enum wire_reason reason = WIRE_OVER_BUDGET;
	int kept = buffers_keep(s->buffers, req);

	if (kept == -EALREADY)
		return; /* a process that came later maps it, too */
	if (kept && s->nr >= SCAN_RANGES_MAX) {
		refused(s, reason);
		return;
	}
	s->nr++;
	if (!kept)
		return;
	s->pending++;
	if (buffers_add(s->buffers, req, &reason) == 0)
		return;
	s->pending--;
	s->nr--;
	refused(s, reason);
}

static void want_range(struct scan *s, const struct scan_found *f, const struct scan_range *r)
{
	const struct scan_range *file = find_file(f, r->dev, r->ino);

	want(s, &(struct buffer_request){
			.fd = file ? file->fd : -1,
			.offset = r->offset,
			.len = r->len,
			.read_only = r->read_only,
			.client = s,
			.account = &s->account,
			.seq = s->round,
			.answer = answered,
			.answer_arg = s,
			.dev = r->dev,
			.ino = r->ino,
		});
}

void scan_take(struct scan *s, struct scan_found *f, bool whole)
{
	s->pending++;
	if (whole) {
		s->round++;
		s->nr = s->refused = 0;
		s->why = WIRE_OK;
	}
	for (unsigned int i = 0; i < f->nr; i++)
		want_range(s, f, &f->ranges[i]);
	s->refused += f->left_out;
	if (f->left_out)
		s->why = WIRE_OVER_BUDGET;
	scan_close(f);
	if (whole)
		s->pending -= buffers_sweep(s->buffers, s, s->round);
	finished_one(s);
}

/* ---- one process, by a worker ---- */

struct scan_job {
	struct worker_job work; /* first */
	struct scan *scan;	/* NULL: nobody wants it any more */
	uid_t user;
	pid_t pid;
	int pidfd; /* ours */
	struct scan_found found;
};

static void run(struct worker_job *work)
{
	struct scan_job *job = (struct scan_job *)work;

	scan_look(&job->found, job->pid, job->pidfd);
}

static void ran(struct worker_job *work)
{
	struct scan_job *job = (struct scan_job *)work;
	struct scan *s = job->scan;

	if (s) {
		bool again = s->again;

		s->job = NULL;
		s->again = false;
		scan_take(s, &job->found, true);
		if (again)
			scan_start(s, job->user, job->pid, job->pidfd);
		finished_one(s);
	} else {
		scan_close(&job->found);
	}
	close(job->pidfd);
	free(job);
}

int scan_start(struct scan *s, uid_t user, pid_t pid, int pidfd)
{
	struct scan_job *job;
	int ret;

	if (s->job) {
		s->again = true;
		return 0;
	}
	job = calloc(1, sizeof(*job));
	if (!job)
		return -ENOMEM;
	*job = (struct scan_job){
		.work = { .run = run, .done = ran },
		.scan = s,
		.user = user,
		.pid = pid,
		.pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0),
	};
	ret = job->pidfd < 0 ? -errno : worker_start(user, WORKER_LOOK, &job->work);
	if (ret) {
		if (job->pidfd >= 0)
			close(job->pidfd);
		free(job);
		return ret;
	}
	s->job = job;
	s->pending++; /* until it is taken */
	return 0;
}

void scan_forget(struct scan *s)
{
	if (s->job)
		s->job->scan = NULL;
	s->job = NULL;
	s->again = false;
	buffers_forget_client(s->buffers, s);
	s->pending = s->nr = 0;
}

uint64_t scan_bytes(const struct scan *s)
{
	return buffers_live_bytes(s->buffers, s);
}
