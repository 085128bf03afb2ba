/* SPDX-License-Identifier: MIT */
/*
 * stats.h - this process's report (common/report.h).
 *
 * Relaxed atomics.  Printed at exit with UBLKZC_STATS=1; kept in a file with
 * UBLKZC_STATS_FILE.
 */
#ifndef UBLKZC_PRELOAD_STATS_H
#define UBLKZC_PRELOAD_STATS_H

#include "common/report.h"
#include "shard.h"

extern struct report *stats_report; /* never NULL */

static inline void stat_add(enum stat_id which, unsigned long long n)
{
	atomic_fetch_add_explicit(&stats_report->counters[which], n, memory_order_relaxed);
}

/* For those below STAT_HOT_NR.  Without a locked instruction: threads of one
 * shard that count at once may lose one. */
static inline void stat_add_hot(enum stat_id which, unsigned long long n)
{
	atomic_ullong *counter =
		&stats_report->hot[thread_shard(REPORT_SHARD_BITS)].counters[which];

	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline unsigned long long stat_get(enum stat_id which)
{
	return report_get(stats_report, which);
}

/* Who we are, and why the shim is off (NULL: it is on). */
void stats_start(const char *program, const char *off_reason);

/* Keep the report in a slot of the file @path, which "ublkzc run" has made. */
void stats_use_file(const char *path);

/* Is it in a file?  Then it is worth a system call more to know more. */
bool stats_in_file(void);

/* Remember the reason of the last refusal (enum wire_reason). */
void stats_last_refusal(unsigned int reason);

/* Remember that /dev/ublkb@device has no server. */
void stats_no_server(unsigned int device);

/* A file on a ublk disk was opened without O_DIRECT. */
void stats_buffered_open(const char *path);

/* What would be captured: the answer to UBLKZC_PROBE. */
void stats_captures(const char *text);

/* Print the summary, lines of plain words. */
void stats_print(void);

/* A child starts counting anew, in a slot of its own. */
void stats_reset(void);

#endif
