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
 * attachment (attach.h) of several processes.  Each round looks at all its
 * processes; what a round does not find any more is given up.
 */
#ifndef UBLKZC_SERVER_SCAN_H
#define UBLKZC_SERVER_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buffers.h"

/* Buffers one scan may use. */
#define SCAN_BUFFERS_MAX 256U

struct scan {
	struct buffers *buffers;
	uint64_t max_bytes; /* that it may use */
	/* When all that a round asked for has been answered; may be NULL. */
	void (*done)(struct scan *s, void *arg);
	void *done_arg;
	/* Results: of the last round that is done, or of the one under way. */
	unsigned int nr;      /* buffers in use */
	uint64_t bytes;	      /* in them */
	unsigned int refused; /* mappings or parts not registered */
	enum wire_reason why; /* of the last refusal */
	unsigned int round;
	bool fresh;	      /* what it does not find is given up */
	unsigned int pending; /* answers to come, and one while the round is on */
};

/* A round, or (not @fresh) an addition to the last one. */
void scan_begin(struct scan *s, bool fresh);

/* Look at one process.  @pidfd shows that @pid is still that process; what is
 * found after it has exited is not believed.  0, or a negative errno: -ESRCH. */
int scan_process(struct scan *s, pid_t pid, int pidfd);

void scan_end(struct scan *s);

/* Give up everything. */
void scan_forget(struct scan *s);

#endif
