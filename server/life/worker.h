/* SPDX-License-Identifier: MIT */
/*
 * worker.h - work that may take long, on threads that hold up nobody but its cause.
 *
 * Looking at a process, at a file or closing what a client sent may take as long as that
 * client likes.  So each user has threads of its own, one for each kind of work: it does what
 * was begun in that order, and ends when there is no more.  What was done is
 * brought back to the control thread.
 */
#ifndef UBLKZC_SERVER_WORKER_H
#define UBLKZC_SERVER_WORKER_H

#include <sys/types.h>

/* Threads of all users; more is refused with -EAGAIN. */
#define WORKER_THREADS_MAX 512

enum worker_kind { WORKER_CLOSE, WORKER_LOOK };

/* Embedded in what the work needs, which is allocated by malloc(3). */
struct worker_job {
	struct worker_job *next;
	void (*run)(struct worker_job *job); /* on the thread */
	/* From worker_collect(); frees it.  NULL: it is freed on the thread. */
	void (*done)(struct worker_job *job);
};

/* 0, or a negative errno: nothing will happen, and @job is the caller's.  Any thread. */
int worker_start(uid_t user, enum worker_kind kind, struct worker_job *job);

/* Jobs of @user that have been begun and not been run. */
unsigned int worker_pending_of(uid_t user, enum worker_kind kind);
unsigned int worker_pending(enum worker_kind kind);

/* Control thread: readable when there is something to collect; -errno. */
int worker_fd(void);
void worker_collect(void);

/* Wait for all that was begun, and collect it: for tests. */
void worker_wait(void);

#endif
