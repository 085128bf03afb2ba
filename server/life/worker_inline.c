/* SPDX-License-Identifier: MIT */
/*
 * worker_inline.c - worker.h without threads, for libublkzc-server.
 *
 * A library does not start threads in somebody else's program.  What was begun is done by
 * whoever collects it: libublkzc-server's dispatch(), which may be on a thread of its own.
 */
#include "worker.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct waiting {
	struct worker_job *first, **last;
	unsigned int nr;
};

static struct waiting waiting[] = {
	[WORKER_CLOSE] = { .last = &waiting[WORKER_CLOSE].first },
	[WORKER_LOOK] = { .last = &waiting[WORKER_LOOK].first },
};
static int event_fd = -1; /* kept for the life of the process */

int worker_start(uid_t user, enum worker_kind kind, struct worker_job *job)
{
	struct waiting *w = &waiting[kind];
	uint64_t one = 1;

	(void)user;
	job->next = NULL;
	*w->last = job;
	w->last = &job->next;
	w->nr++;
	if (event_fd >= 0 && write(event_fd, &one, sizeof(one)) < 0)
		return 0; /* it is full, so it is readable */
	return 0;
}

/* Those of everybody: a user who has too many holds up the others, for one round. */
unsigned int worker_pending_of(uid_t user, enum worker_kind kind)
{
	(void)user;
	return waiting[kind].nr;
}

unsigned int worker_pending(enum worker_kind kind)
{
	return waiting[kind].nr;
}

int worker_fd(void)
{
	if (event_fd < 0)
		event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return event_fd < 0 ? -errno : event_fd;
}

/* What this begins is for the next round, so that a round ends. */
static void collect(struct waiting *w)
{
	unsigned int nr = w->nr;

	while (nr--) {
		struct worker_job *job = w->first;

		w->first = job->next;
		if (!w->first)
			w->last = &w->first;
		w->nr--;
		job->run(job);
		if (job->done)
			job->done(job);
		else
			free(job);
	}
}

void worker_collect(void)
{
	uint64_t nr;

	if (event_fd >= 0 && read(event_fd, &nr, sizeof(nr)) < 0 && errno != EAGAIN)
		return;
	collect(&waiting[WORKER_LOOK]);
	collect(&waiting[WORKER_CLOSE]);
}

void worker_wait(void)
{
	while (waiting[WORKER_LOOK].nr || waiting[WORKER_CLOSE].nr)
		worker_collect();
}
