/* SPDX-License-Identifier: MIT */
/*
 * report.h - what the shim counted in one process, and what to say of it.
 *
 * Each process has one report, in its own memory, or in a slot of a file that
 * "ublkzc run" made (UBLKZC_STATS_FILE), so that it outlives _exit and kill.
 * Counters are for people, not for decisions.  Strings are written once.
 *
 * The file's layout is private to one version; both sides check magic and
 * size.  Whoever reads it trusts nothing in it but that it is memory.
 */
#ifndef UBLKZC_COMMON_REPORT_H
#define UBLKZC_COMMON_REPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stat_id {
	/* counted at each allocation */
	STAT_CAPTURED, /* allocations */
	STAT_CAPTURED_BYTES,
	STAT_PROFILE_OFF, /* large malloc, but not captured for this program */
	STAT_HOT_NR,
	/* counted now and then */
	STAT_MAPPINGS = STAT_HOT_NR, /* private mappings captured */
	STAT_MAPPED_BYTES,
	STAT_MAPPINGS_LOST,	/* pieces that the program's calls made private again */
	STAT_NO_ARENA,		/* memfd or address space refused, or the limit reached */
	STAT_TOO_BIG,		/* for one registered buffer */
	STAT_ODD_ALIGNMENT,	/* more than 2 MiB */
	STAT_MMAP_OFF,		/* large private mapping, but not captured */
	STAT_BRIEF,		/* large private mapping like others that lived briefly */
	STAT_FORKED_WITHOUT_US, /* by raw clone: capture is off in the child */
	STAT_BUSY,		/* the lock could not be had */
	STAT_HELD_BYTES,	/* of captured memory existed at the end */
	STAT_ARENAS,
	STAT_ARENAS_SENT,
	STAT_ARENAS_REFUSED,
	STAT_ARENAS_RETIRED, /* by a fork */
	STAT_BUFFERED_OPENS, /* on a ublk disk without O_DIRECT; only with a file of reports */
	STAT_DIRECT_OPENS,   /* descriptors with O_DIRECT seen */
	STAT_NOT_UBLK,	     /* of these, not on a ublk disk */
	STAT_LOOKUP_FAILED,  /* sysfs could not be read */
	STAT_ARMED,	     /* sessions established */
	STAT_NO_SERVER,	     /* no socket behind the device */
	STAT_DEADLINE,	     /* the server did not answer in time */
	STAT_LATE,	     /* it answered afterwards */
	STAT_REFUSED,	     /* HELLO refused */
	STAT_LEGACY,	     /* sessions by the older protocol */
	STAT_SESSION_LOST,
	STAT_SCANS, /* of the program's own shared memory, asked for */
	STAT_FORK_COPIES,
	STAT_FORK_PRIVATE,
	STAT_NR
};

#define REPORT_SHARD_BITS 3U
#define REPORT_TEXT 192 /* bytes of a string, its end included */

struct report {
	_Atomic int32_t pid;	       /* 0: the slot is unused */
	_Atomic uint32_t last_refusal; /* enum wire_reason */
	_Atomic uint32_t no_server;    /* N of a ublkbN without a server, plus one */
	uint32_t pad;
	char program[32];
	char off_reason[REPORT_TEXT];	 /* empty: the shim was on */
	char captures[REPORT_TEXT];	 /* what would be; only for UBLKZC_PROBE */
	char buffered_path[REPORT_TEXT]; /* of the first such open; empty: none */
	atomic_ullong counters[STAT_NR];
	/* Threads that count in one cache line slow each other down. */
	struct {
		_Alignas(64) atomic_ullong counters[STAT_HOT_NR];
	} hot[1U << REPORT_SHARD_BITS];
};

#define REPORT_MAGIC 0x72706572637a6c62ULL
#define REPORT_SLOTS 2048U /* processes; what more there are keep theirs to themselves */

struct report_file {
	uint64_t magic;
	uint32_t slot_size; /* sizeof(struct report) */
	uint32_t nr_slots;
	atomic_uint next; /* slots given out, may exceed nr_slots */
	uint32_t pad;
	struct report slots[];
};

#define REPORT_FILE_SIZE (sizeof(struct report_file) + REPORT_SLOTS * sizeof(struct report))

unsigned long long report_get(const struct report *r, enum stat_id which);

typedef void report_line_fn(void *arg, const char *line);

/* What was counted, a line each, without what is zero. */
void report_counts(const struct report *r, report_line_fn *line, void *arg);

/* What stood in the way of zero copy and what to do about it, a line each;
 * false when nothing did. */
bool report_advice(const struct report *r, report_line_fn *line, void *arg);

#endif
