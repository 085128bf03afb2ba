/* SPDX-License-Identifier: MIT */
/* stats.c - counters and the summary at exit. */
#include "stats.h"

#include <errno.h>
#include <stddef.h>

#include "common/log.h"
#include "common/wire.h"
#include "sys.h"

atomic_ullong stats[STAT_NR];
static atomic_uint last_refusal;

static const struct {
	enum stat_id stat;
	const char *text;
} lines[] = {
	{ STAT_CAPTURED, "allocations captured for direct I/O" },
	{ STAT_CAPTURED_BYTES, "bytes in them" },
	{ STAT_MAPPINGS, "private mappings captured" },
	{ STAT_MAPPED_BYTES, "bytes in them" },
	{ STAT_MAPPINGS_LOST, "pieces of them made private again (mremap, madvise)" },
	{ STAT_PROFILE_OFF, "large allocations not captured: malloc is off for this program "
			    "(UBLKZC_CAPTURE=malloc turns it on)" },
	{ STAT_TOO_BIG, "allocations not captured: over 4 GiB" },
	{ STAT_ODD_ALIGNMENT, "allocations not captured: aligned to more than 2 MiB" },
	{ STAT_NO_ARENA, "allocations not captured: no memfd, no address space, RLIMIT_AS or "
			 "RLIMIT_FSIZE set, or UBLKZC_MAX_MB reached" },
	{ STAT_FORKED_WITHOUT_US, "calls passed through in a child made by _Fork or clone" },
	{ STAT_BAD_FREE, "frees of pointers that are no block of ours, ignored" },
	{ STAT_ARENAS, "arenas made" },
	{ STAT_ARENAS_SENT, "arenas registered with a server" },
	{ STAT_ARENAS_REFUSED, "arenas refused by a server or the kernel" },
	{ STAT_ARENAS_RETIRED, "arenas retired by a fork" },
	{ STAT_DIRECT_OPENS, "descriptors opened with O_DIRECT" },
	{ STAT_NOT_UBLK, "of them not on a ublk disk" },
	{ STAT_LOOKUP_FAILED, "of them on a disk that sysfs did not tell" },
	{ STAT_ARMED, "sessions with a server" },
	{ STAT_LEGACY, "of them by the older one-byte protocol" },
	{ STAT_NO_SERVER, "ublk disks without a ublkzc server behind them (no socket)" },
	{ STAT_DEADLINE, "servers that did not answer in time (UBLKZC_CONNECT_MS)" },
	{ STAT_REFUSED, "servers that refused us" },
	{ STAT_SESSION_LOST, "sessions lost" },
	{ STAT_SCANS, "times a server was told to look at the program's own shared memory" },
	{ STAT_FORK_COPIES, "forks repaired by copying to the child" },
	{ STAT_FORK_PRIVATE, "forks repaired by making arenas private" },
};

void stats_last_refusal(unsigned int reason)
{
	atomic_store_explicit(&last_refusal, reason, memory_order_relaxed);
}

void stats_reset(void)
{
	for (int i = 0; i < STAT_NR; i++)
		atomic_store_explicit(&stats[i], 0, memory_order_relaxed);
}

static const char *advice(void)
{
	if (!stat_get(STAT_DIRECT_OPENS))
		return "nothing was opened with O_DIRECT: switch the program's direct I/O on";
	if (stat_get(STAT_DIRECT_OPENS) == stat_get(STAT_NOT_UBLK))
		return "no direct I/O went to a ublk disk";
	if (!stat_get(STAT_CAPTURED) && !stat_get(STAT_MAPPINGS))
		return "no allocation looked like a direct-I/O buffer: try UBLKZC_CAPTURE=malloc";
	if (!stat_get(STAT_ARENAS_SENT))
		return "no server has our memory: see the lines above";
	return NULL;
}

void stats_print(const char *off_reason)
{
	const char *words = off_reason ? NULL : advice();
	unsigned int reason = atomic_load_explicit(&last_refusal, memory_order_relaxed);

	log_line(LOG_ERROR, "process %d", (int)sys_getpid());
	if (off_reason)
		log_line(LOG_ERROR, "  switched off: %s", off_reason);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (stat_get(lines[i].stat))
			log_line(LOG_ERROR, "  %llu %s", stat_get(lines[i].stat), lines[i].text);
	if (reason)
		log_line(LOG_ERROR, "  last refusal: %s", wire_reason_text(reason));
	if (words)
		log_line(LOG_ERROR, "  %s", words);
}
