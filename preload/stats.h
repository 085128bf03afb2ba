/* SPDX-License-Identifier: MIT */
/*
 * stats.h - what was captured, what was not, and why.
 *
 * Counters are for people, not for decisions: relaxed atomics.  Printed at
 * exit with UBLKZC_STATS=1.
 */
#ifndef UBLKZC_PRELOAD_STATS_H
#define UBLKZC_PRELOAD_STATS_H

#include <stdatomic.h>

enum stat_id {
	STAT_CAPTURED, /* allocations */
	STAT_CAPTURED_BYTES,
	STAT_MAPPINGS, /* private mappings captured */
	STAT_MAPPED_BYTES,
	STAT_MAPPINGS_LOST,	/* pieces that the program's calls made private again */
	STAT_NO_ARENA,		/* memfd or address space refused, or the limit reached */
	STAT_TOO_BIG,		/* for one registered buffer */
	STAT_ODD_ALIGNMENT,	/* more than 2 MiB */
	STAT_PROFILE_OFF,	/* large malloc, but not captured for this program */
	STAT_FORKED_WITHOUT_US, /* _Fork or clone: capture is off in the child */
	STAT_BAD_FREE,		/* a pointer in an arena that is no block */
	STAT_ARENAS,
	STAT_ARENAS_SENT,
	STAT_ARENAS_REFUSED,
	STAT_ARENAS_RETIRED, /* by a fork */
	STAT_DIRECT_OPENS,   /* descriptors with O_DIRECT seen */
	STAT_NOT_UBLK,	     /* of these, not on a ublk disk */
	STAT_LOOKUP_FAILED,  /* sysfs could not be read */
	STAT_ARMED,	     /* sessions established */
	STAT_NO_SERVER,	     /* no socket behind the device */
	STAT_DEADLINE,	     /* the server did not answer in time */
	STAT_REFUSED,	     /* HELLO refused */
	STAT_LEGACY,	     /* sessions by the older protocol */
	STAT_SESSION_LOST,
	STAT_SCANS, /* of the program's own shared memory, asked for */
	STAT_FORK_COPIES,
	STAT_FORK_PRIVATE,
	STAT_NR
};

extern atomic_ullong stats[STAT_NR];

static inline void stat_add(enum stat_id which, unsigned long long n)
{
	atomic_fetch_add_explicit(&stats[which], n, memory_order_relaxed);
}

static inline unsigned long long stat_get(enum stat_id which)
{
	return atomic_load_explicit(&stats[which], memory_order_relaxed);
}

/* Remember the reason of the last refusal (enum wire_reason), for the summary. */
void stats_last_refusal(unsigned int reason);

/* Print the summary, lines of plain words; @off_reason is NULL or why the shim is off. */
void stats_print(const char *off_reason);

/* A child starts counting anew. */
void stats_reset(void);

#endif
