/* SPDX-License-Identifier: MIT */
/*
 * scan.h - register the memory that a process itself shares.
 *
 * Such memory (PostgreSQL's shared buffers, SysV segments, files on tmpfs or
 * hugetlbfs) needs no libublkzc.so: we find it in /proc, map the same pages and
 * register them.  However many processes use it, it is registered once.  It is
 * not sealed, so it may be truncated under us: everything touches it by system
 * calls only, which then fail.
 *
 * A scan is one user of buffers: a client of the socket that sent SCAN, or an
 * attachment (attach.h) of several processes.  Processes are looked at on a thread of their
 * user's (worker.h), since they can make it take long; what was found is then wanted, in one
 * round, and what a round has not found any more is given up.
 */
#ifndef UBLKZC_SERVER_MEMORY_SCAN_H
#define UBLKZC_SERVER_MEMORY_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buffers.h"

/* Ranges that one scan may want. */
#define SCAN_RANGES_MAX 256U

/* What a look found. */
struct scan_range {
	int fd; /* -1: an earlier range of the same file has it */
	dev_t dev;
	ino_t ino;
	uint64_t offset, len;
	bool read_only;
};

struct scan_found {
	unsigned int nr;
	unsigned int left_out; /* more than SCAN_RANGES_MAX */
	struct scan_range ranges[SCAN_RANGES_MAX];
};

/*
 * Look at one process; any thread.  @pidfd shows that @pid is still that process; what is
 * found after it has exited is not believed.  0, or a negative errno: -ESRCH.
 */
int scan_look(struct scan_found *f, pid_t pid, int pidfd);
void scan_close(struct scan_found *f);

struct scan_job;

struct scan {
	struct buffers *buffers;
	struct account account; /* pays for what it finds */
	/* When all that a round asked for has been answered; may be NULL. */
	void (*done)(struct scan *s, void *arg);
	void *done_arg;
	/* Results: of the last round that is done, or of the one under way. */
	unsigned int nr;      /* ranges of memory that are wanted */
	unsigned int refused; /* those that are not registered */
	enum wire_reason why; /* of the last refusal */
	unsigned int round;
	unsigned int pending; /* answers to come, and one while the round is on */
	struct scan_job *job; /* looking at a process for scan_start() */
	bool again;	      /* and once more after that */
};

/*
 * Want what @f has, whose descriptors are closed; and nothing else any more, if it is a
 * @whole round.  Control thread, as everything below.
 */
void scan_take(struct scan *s, struct scan_found *f, bool whole);

/*
 * A round of one process of @user.  If one is under way there will be another after
 * it, and done() comes once, for both.  -errno: there will be none.
 */
int scan_start(struct scan *s, uid_t user, pid_t pid, int pidfd);

/* Give up everything. */
void scan_forget(struct scan *s);

/* Registered bytes of what it wants. */
uint64_t scan_bytes(const struct scan *s);

#endif
