/* SPDX-License-Identifier: MIT */
/* report.c - the words for what was counted. */
#include "report.h"

#include "log.h"
#include "wire.h"

static const struct {
	enum stat_id stat;
	const char *text;
} counts[] = {
	{ STAT_CAPTURED, "allocations captured for direct I/O" },
	{ STAT_CAPTURED_BYTES, "bytes in them" },
	{ STAT_MAPPINGS, "private mappings captured" },
	{ STAT_MAPPED_BYTES, "bytes in them" },
	{ STAT_MAPPINGS_LOST, "pieces of them made private again (mremap, madvise)" },
	{ STAT_PROFILE_OFF, "large allocations not captured: malloc is off for this program" },
	{ STAT_MMAP_OFF, "large private mappings not captured: mmap is off for this program" },
	{ STAT_BRIEF, "private mappings not captured: others of their length were unmapped at "
		      "once (UBLKZC_MMAP_BRIEF_MS)" },
	{ STAT_TOO_BIG, "allocations not captured: over 4 GiB" },
	{ STAT_ODD_ALIGNMENT, "allocations not captured: aligned to more than 2 MiB" },
	{ STAT_NO_ARENA, "allocations not captured: no memfd, no address space, RLIMIT_AS or "
			 "RLIMIT_FSIZE set, vm.overcommit_memory is 2, or UBLKZC_MAX_MB reached" },
	{ STAT_FORKED_WITHOUT_US, "calls passed through in a child made by a system call of the program's own" },
	{ STAT_BUSY, "allocations not captured: during a fork, or in a signal handler" },
	{ STAT_HELD_BYTES, "bytes of captured memory existed at the end" },
	{ STAT_ARENAS, "arenas made" },
	{ STAT_ARENAS_SENT, "arenas registered with a server" },
	{ STAT_ARENAS_REFUSED, "arenas refused by a server or the kernel" },
	{ STAT_ARENAS_RETIRED, "arenas retired by a fork" },
	{ STAT_BUFFERED_OPENS, "descriptors opened on a ublk disk without O_DIRECT" },
	{ STAT_DIRECT_OPENS, "descriptors opened with O_DIRECT" },
	{ STAT_NOT_UBLK, "of them not on a ublk disk" },
	{ STAT_LOOKUP_FAILED, "of them on a disk that sysfs did not tell" },
	{ STAT_ARMED, "sessions with a server" },
	{ STAT_LEGACY, "of them by the older one-byte protocol" },
	{ STAT_NO_SERVER, "times a ublk disk had no ublkzc server behind it (no socket)" },
	{ STAT_DEADLINE, "times a server did not answer in time (UBLKZC_CONNECT_MS)" },
	{ STAT_LATE, "of them it answered later, and what was opened became zero-copy then" },
	{ STAT_REFUSED, "times a server refused us" },
	{ STAT_SESSION_LOST, "sessions lost" },
	{ STAT_SCANS, "times a server was told to look at the program's own shared memory" },
	{ STAT_FORK_COPIES, "forks repaired by copying to the child" },
	{ STAT_FORK_PRIVATE, "forks repaired by making arenas private" },
};

unsigned long long report_get(const struct report *r, enum stat_id which)
{
	unsigned long long n = atomic_load_explicit(&r->counters[which], memory_order_relaxed);

	for (unsigned int i = 0; which < STAT_HOT_NR && i < 1U << REPORT_SHARD_BITS; i++)
		n += atomic_load_explicit(&r->hot[i].counters[which], memory_order_relaxed);
	return n;
}

void report_counts(const struct report *r, report_line_fn *line, void *arg)
{
	char text[LOG_LINE_MAX];

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		if (!report_get(r, counts[i].stat))
			continue;
		log_format(text, sizeof(text), "%llu %s", report_get(r, counts[i].stat),
			   counts[i].text);
		line(arg, text);
	}
}

/* Nothing was ever opened that could have become zero-copy. */
static const char *why_not_armed(const struct report *r, char *text, unsigned int size)
{
	unsigned long long on_ublk = report_get(r, STAT_DIRECT_OPENS) -
				     report_get(r, STAT_NOT_UBLK) -
				     report_get(r, STAT_LOOKUP_FAILED);

	if (on_ublk && report_get(r, STAT_DIRECT_OPENS))
		return NULL;
	if (report_get(r, STAT_LOOKUP_FAILED))
		return "what was opened with O_DIRECT could not be looked up: is /sys mounted?";
	if (r->buffered_path[0]) {
		log_format(text, size, "%s opened %s without O_DIRECT: switch its direct I/O on",
			   r->program, r->buffered_path);
		return text;
	}
	if (report_get(r, STAT_DIRECT_OPENS))
		return "its direct I/O did not go to a ublk disk";
	return "nothing was opened with O_DIRECT: switch the program's direct I/O on";
}

static const char *why_no_session(const struct report *r, char *text, unsigned int size)
{
	if (report_get(r, STAT_ARMED))
		return NULL;
	if (r->no_server) {
		log_format(
			text, size,
			"no server behind /dev/ublkb%u, or one that is not ublkzc: see ublkzc list",
			r->no_server - 1);
		return text;
	}
	if (report_get(r, STAT_REFUSED)) {
		log_format(text, size, "the server refused us: %s",
			   wire_reason_text(r->last_refusal));
		return text;
	}
	if (report_get(r, STAT_DEADLINE))
		return "so many others were queueing for the server that it was not reached within "
		       "UBLKZC_CONNECT_MS: raise it";
	return NULL;
}

static const char *why_not_captured(const struct report *r, char *text, unsigned int size)
{
	const char *word = NULL;

	if (report_get(r, STAT_CAPTURED) || report_get(r, STAT_MAPPINGS))
		return NULL;
	if (report_get(r, STAT_NO_ARENA))
		return "no memory could be shared: RLIMIT_AS or RLIMIT_FSIZE is set, "
		       "vm.overcommit_memory is 2, memfd_create is forbidden, or UBLKZC_MAX_MB is "
		       "reached";
	if (report_get(r, STAT_PROFILE_OFF))
		word = report_get(r, STAT_MMAP_OFF) ? "malloc mmap" : "malloc";
	else if (report_get(r, STAT_MMAP_OFF))
		word = "mmap";
	if (!word && report_get(r, STAT_SCANS))
		return NULL;
	if (!word)
		return "no allocation looked like a direct-I/O buffer: the program may take them "
		       "from an allocator of its own";
	log_format(text, size,
		   "%sits buffers may come from plain memory, which is not captured for it: try "
		   "UBLKZC_PROFILE='%s %s'",
		   report_get(r, STAT_SCANS) ? "only memory it shares itself was registered; if "
					       "that is not all its I/O, "
					     : "",
		   r->program, word);
	return text;
}

static const char *why_not_all(const struct report *r, char *text, unsigned int size)
{
	if (report_get(r, STAT_ARENAS_REFUSED)) {
		log_format(text, size, "the server refused %llu arenas: %s",
			   report_get(r, STAT_ARENAS_REFUSED), wire_reason_text(r->last_refusal));
		return text;
	}
	if (report_get(r, STAT_DEADLINE))
		return "the server took longer than UBLKZC_CONNECT_MS to answer: what was read and "
		       "written until then was copied, and zero-copy from then on";
	if (report_get(r, STAT_ARENAS_RETIRED))
		return "a fork made buffers private, which are copied since: UBLKZC_FORK=copy "
		       "keeps them";
	if (report_get(r, STAT_BRIEF) > report_get(r, STAT_MAPPINGS))
		return "it maps and unmaps its buffers faster than a server could register them: "
		       "keep them, or see UBLKZC_MMAP_BRIEF_MS";
	if (report_get(r, STAT_NO_ARENA))
		return "not all buffers could be captured: RLIMIT_AS, RLIMIT_FSIZE, "
		       "vm.overcommit_memory=2 or UBLKZC_MAX_MB";
	if (r->buffered_path[0]) {
		log_format(text, size,
			   "%s also opened %s without O_DIRECT%s: what it read and wrote through "
			   "that was copied",
			   r->program, r->buffered_path,
			   report_get(r, STAT_BUFFERED_OPENS) > 1 ? ", and more after it" : "");
		return text;
	}
	return NULL;
}

bool report_advice(const struct report *r, report_line_fn *line, void *arg)
{
	static const char *(*const questions[])(const struct report *, char *,
						unsigned int) = { why_not_armed, why_no_session,
								  why_not_captured, why_not_all };
	char text[LOG_LINE_MAX];

	if (r->off_reason[0]) {
		log_format(text, sizeof(text), "the shim was off: %s", r->off_reason);
		line(arg, text);
		return true;
	}
	/* What stood in the way first; the rest follows from it. */
	for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
		const char *answer = questions[i](r, text, sizeof(text));

		if (!answer)
			continue;
		line(arg, answer);
		return true;
	}
	return false;
}
