/* SPDX-License-Identifier: MIT */
/*
 * host.h - plays ublkzc for an engine: one queue, polled by poll(2) on the test's own thread.
 * Requests may be completed on any thread.
 */
#ifndef UBLKZC_TESTS_ENGINES_HOST_H
#define UBLKZC_TESTS_ENGINES_HOST_H

#include <ublkzc/engine.h>

#define HOST_DEPTH 32U
#define HOST_MAX_IO (256U << 10)

extern const struct ublkzc_module ublkzc_module;
extern const struct ublkzc_engine *engine;
extern struct ublkzc_target target;
extern struct ublkzc_queue queue;
extern char host_said[4096]; /* what was logged last */

struct task {
	struct ublkzc_request rq;
	struct iovec iov[4];
	bool done;
	int res;
};

/* "NAME=VALUE" for -o, up to eight, then NULL.  What open() returned. */
int host_open(const char *argument, ...);

/* The next host_open() is a successor's, who has @fd, or nothing (-1), from the dead server. */
void host_succeed(int fd);

/* The next host_open() is told that nobody may write. */
extern bool host_read_only;

/* As if the server had died: what it had is closed, but target.fd.  Then host_open() is a
 * successor's. */
void host_die(void);
void host_close(void);
extern bool host_dying; /* in host_die() */

/* Begin; its data in @nr pieces. */
void begin(struct task *t, enum ublkzc_op op, uint64_t offset, void *data, uint32_t len,
	   unsigned int nr);

/* Until @t is done, or @seconds have gone by. */
bool await(struct task *t, unsigned int seconds);

/* What is ready, for @ms. */
void run(int ms);

/* Whole: 0 or a negative errno. */
int do_io(enum ublkzc_op op, uint64_t offset, void *data, uint32_t len);

#endif
