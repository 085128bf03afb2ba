/* SPDX-License-Identifier: MIT */
/* worker.c - see worker.h. */
#include "worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A thread; it is in the list while it runs. */
struct worker {
	struct worker *next;
	uid_t user;
	enum worker_kind kind;
	unsigned int nr; /* jobs, with the one that is being done */
	struct worker_job *first, **last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock: */
static struct worker *workers;
static unsigned int nr_workers;
static struct worker_job *finished, **last_finished = &finished;
static int event_fd = -1;

static struct worker *find(uid_t user, enum worker_kind kind)
{
	struct worker *w = workers;

	while (w && (w->user != user || w->kind != kind))
		w = w->next;
	return w;
}

/* ---- on the threads ---- */

static void bring_back(struct worker_job *job)
{
	uint64_t one = 1;

	job->next = NULL;
	*last_finished = job;
	last_finished = &job->next;
	if (event_fd >= 0 && write(event_fd, &one, sizeof(one)) < 0)
		return; /* it is full, so it is readable */
}

static void unlink_worker(const struct worker *w)
{
	struct worker **link = &workers;

	while (*link != w)
		link = &(*link)->next;
	*link = w->next;
	nr_workers--;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct worker_job *job;

	pthread_mutex_lock(&lock);
	while ((job = w->first)) {
		bool comes_back = job->done;

		w->first = job->next;
		if (!w->first)
			w->last = &w->first;
		pthread_mutex_unlock(&lock);
		job->run(job);
		if (!comes_back)
			free(job);
		pthread_mutex_lock(&lock);
		w->nr--;
		if (comes_back)
			bring_back(job);
	}
	unlink_worker(w);
	pthread_mutex_unlock(&lock);
	free(w);
	return NULL;
}

static int start_thread(struct worker *w)
{
	sigset_t all, before;
	pthread_t thread;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&thread, NULL, work, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!err)
		pthread_detach(thread);
	return -err;
}

/* ---- handing over ---- */

static int new_worker(uid_t user, enum worker_kind kind, struct worker_job *job)
{
	struct worker *w = nr_workers < WORKER_THREADS_MAX ? malloc(sizeof(*w)) : NULL;
	int ret;

	if (!w)
		return nr_workers < WORKER_THREADS_MAX ? -ENOMEM : -EAGAIN;
	*w = (struct worker){
		.next = workers,
		.user = user,
		.kind = kind,
		.nr = 1,
		.first = job,
		.last = &job->next,
	};
	workers = w;
	nr_workers++;
	ret = start_thread(w);
	if (ret) {
		unlink_worker(w);
		free(w);
	}
	return ret;
}

int worker_start(uid_t user, enum worker_kind kind, struct worker_job *job)
{
	struct worker *w;
	int ret = 0;

	job->next = NULL;
	pthread_mutex_lock(&lock);
	w = find(user, kind);
	if (w) {
		*w->last = job;
		w->last = &job->next;
		w->nr++;
	} else {
		ret = new_worker(user, kind, job);
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

unsigned int worker_pending_of(uid_t user, enum worker_kind kind)
{
	struct worker *w;
	unsigned int nr;

	pthread_mutex_lock(&lock);
	w = find(user, kind);
	nr = w ? w->nr : 0;
	pthread_mutex_unlock(&lock);
	return nr;
}

unsigned int worker_pending(enum worker_kind kind)
{
	unsigned int nr = 0;

	pthread_mutex_lock(&lock);
	for (const struct worker *w = workers; w; w = w->next)
		nr += w->kind == kind ? w->nr : 0;
	pthread_mutex_unlock(&lock);
	return nr;
}

/* ---- collecting ---- */

int worker_fd(void)
{
	int fd;

	pthread_mutex_lock(&lock);
	if (event_fd < 0)
		event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fd = event_fd < 0 ? -errno : event_fd;
	pthread_mutex_unlock(&lock);
	return fd;
}

static struct worker_job *take_finished(void)
{
	struct worker_job *job;

	pthread_mutex_lock(&lock);
	job = finished;
	finished = NULL;
	last_finished = &finished;
	pthread_mutex_unlock(&lock);
	return job;
}

void worker_collect(void)
{
	struct worker_job *job, *next;
	uint64_t nr;

	if (event_fd >= 0 && read(event_fd, &nr, sizeof(nr)) < 0 && errno != EAGAIN)
		return;
	for (job = take_finished(); job; job = next) {
		next = job->next;
		job->done(job);
	}
}

void worker_wait(void)
{
	do {
		while (worker_pending(WORKER_LOOK))
			usleep(200);
		worker_collect();
	} while (worker_pending(WORKER_LOOK) || finished);
}
