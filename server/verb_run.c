/* SPDX-License-Identifier: MIT */
/*
 * verb_run.c - "run": a program under libublkzc.so, and what came of it.
 *
 * What is said comes from two sides: the processes' own reports (common/report.h),
 * and the servers' counters, which are the truth about what was copied.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/report.h"
#include "run_program.h"
#include "run_report.h"
#include "state.h"
#include "verbs.h"

#define DEVICES_MAX 64

static const char usage[] =
	"usage: ublkzc run [options] [--] PROGRAM [ARGUMENTS...]\n"
	"\n"
	"Run PROGRAM with libublkzc.so preloaded, and say afterwards, on standard error, how\n"
	"much of its I/O on ublk devices was zero-copy.  The exit status is PROGRAM's.\n"
	"\n"
	"  -e, --explain        also what was captured, and why the rest was copied\n"
	"  -q, --quiet          say nothing\n"
	"      --capture WORD   UBLKZC_CAPTURE: auto, none, aligned, malloc, mmap or all\n"
	"      --fork WORD      UBLKZC_FORK: auto, copy or private\n"
	"      --profile LINE   UBLKZC_PROFILE: 'PROGRAM malloc mmap ...'\n"
	"      --library PATH   the libublkzc.so to preload\n";

struct wish {
	bool explain, quiet;
	const char *library;
	char **program;
};

/* The servers' counters, before and after. */
struct snapshot {
	unsigned int nr;
	struct {
		unsigned int device;
		struct queue_counters sum;
	} of[DEVICES_MAX];
};

static int take_one(unsigned int device, void *arg)
{
	struct snapshot *s = arg;
	const struct state *state;

	if (s->nr == DEVICES_MAX || state_open(device, &state))
		return 0;
	s->of[s->nr].device = device;
	state_sum(state, &s->of[s->nr++].sum);
	state_close(state);
	return 0;
}

static void take_snapshot(struct snapshot *s)
{
	s->nr = 0;
	state_for_each(take_one, s);
}

static const struct queue_counters *find_device(const struct snapshot *s, unsigned int device)
{
	static const struct queue_counters nothing;

	for (unsigned int i = 0; i < s->nr; i++)
		if (s->of[i].device == device)
			return &s->of[i].sum;
	return &nothing;
}

#define DELTA(field)                                                                               \
	((unsigned long long)(counter_get(&after->field) - counter_get(&before->field)))

static void say_why_copied(const struct queue_counters *before, const struct queue_counters *after)
{
	if (DELTA(copied_no_feature))
		fprintf(stderr,
			"  %llu requests copied: the kernel's ublk driver has no shared-memory "
			"zero "
			"copy, or --copy-only was given\n",
			DELTA(copied_no_feature));
	if (DELTA(copied_nothing_registered))
		fprintf(stderr, "  %llu requests copied: no program had registered memory\n",
			DELTA(copied_nothing_registered));
	if (DELTA(copied_other_memory))
		fprintf(stderr,
			"  %llu requests copied: their memory was not registered, or not in one "
			"piece (buffered I/O, file system metadata, scattered buffers, other "
			"programs)\n",
			DELTA(copied_other_memory));
}

static bool say_device(unsigned int device, const struct queue_counters *before,
		       const struct queue_counters *after, bool explain)
{
	unsigned long long zero = DELTA(read.zero_copy_bytes) + DELTA(write.zero_copy_bytes);
	unsigned long long all = zero + DELTA(read.copied_bytes) + DELTA(write.copied_bytes);

	if (!all)
		return false;
	fprintf(stderr, "ublkzc: /dev/ublkb%u: %llu of %llu bytes zero-copy (%.1f %%)\n", device,
		zero, all, 100.0 * (double)zero / (double)all);
	if (explain)
		say_why_copied(before, after);
	return true;
}

static void say_devices(const struct snapshot *before, const struct snapshot *after, bool explain)
{
	bool any = false;

	for (unsigned int i = 0; i < after->nr; i++)
		any |= say_device(after->of[i].device, find_device(before, after->of[i].device),
				  &after->of[i].sum, explain);
	if (!any)
		fprintf(stderr, "ublkzc: no ublkzc device was read or written meanwhile%s\n",
			after->nr ? "" : " (no server is running: ublkzc list)");
}

/* ---- the processes' reports ---- */

static void print_line(void *arg, const char *line)
{
	(void)arg;
	fprintf(stderr, "  %s\n", line);
}

static void add_report(struct report *sum, const struct report *one)
{
	for (int i = 0; i < STAT_NR; i++)
		atomic_fetch_add(&sum->counters[i], report_get(one, i));
	if (one->last_refusal)
		sum->last_refusal = one->last_refusal;
	if (one->no_server)
		sum->no_server = one->no_server;
	if (!sum->buffered_path[0])
		memcpy(sum->buffered_path, one->buffered_path, sizeof(sum->buffered_path));
	if (!sum->off_reason[0])
		memcpy(sum->off_reason, one->off_reason, sizeof(sum->off_reason));
}

static bool tells_something(const struct report *r)
{
	return r->off_reason[0] || report_get(r, STAT_DIRECT_OPENS) ||
	       report_get(r, STAT_BUFFERED_OPENS) || report_get(r, STAT_CAPTURED) ||
	       report_get(r, STAT_MAPPINGS) || report_get(r, STAT_SCANS);
}

/* All processes of one program are one paragraph. */
static bool say_program(struct report_file *file, unsigned int nr, unsigned int first, bool always)
{
	static struct report sum;
	unsigned int processes = 0;

	memset(&sum, 0, sizeof(sum));
	memcpy(sum.program, file->slots[first].program, sizeof(sum.program));
	for (unsigned int i = first; i < nr; i++) {
		if (strcmp(file->slots[i].program, sum.program) != 0)
			continue;
		add_report(&sum, &file->slots[i]);
		processes++;
	}
	if (!always && !tells_something(&sum))
		return false;
	fprintf(stderr, "ublkzc: %s (%u process%s)\n", sum.program, processes,
		processes == 1 ? "" : "es");
	report_counts(&sum, print_line, NULL);
	report_advice(&sum, print_line, NULL);
	return true;
}

static bool said_before(const struct report_file *file, unsigned int slot)
{
	for (unsigned int i = 0; i < slot; i++)
		if (strcmp(file->slots[i].program, file->slots[slot].program) == 0)
			return true;
	return false;
}

static void say_programs(struct report_file *file, const char *program)
{
	unsigned int nr = file->next < REPORT_SLOTS ? file->next : REPORT_SLOTS;

	if (!nr) {
		fprintf(stderr, "ublkzc: %s: %s\n", program, run_program_why_not(program));
		return;
	}
	for (unsigned int i = 0; i < nr; i++)
		if (!said_before(file, i))
			say_program(file, nr, i, i == 0);
	if (file->next > REPORT_SLOTS)
		fprintf(stderr, "ublkzc: %u more processes are not counted\n",
			file->next - REPORT_SLOTS);
}

/* ---- the verb ---- */

/* 0, or the exit status plus one. */
static int parse(int argc, char **argv, struct wish *w)
{
	static const struct option longs[] = {
		{ "explain", no_argument, NULL, 'e' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "capture", required_argument, NULL, 'c' },
		{ "fork", required_argument, NULL, 'f' },
		{ "profile", required_argument, NULL, 'p' },
		{ "library", required_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	*w = (struct wish){ 0 };
	while ((c = getopt_long(argc, argv, "+eqh", longs, NULL)) != -1) {
		if (c == 'e')
			w->explain = true;
		else if (c == 'q')
			w->quiet = true;
		else if (c == 'c')
			setenv("UBLKZC_CAPTURE", optarg, 1);
		else if (c == 'f')
			setenv("UBLKZC_FORK", optarg, 1);
		else if (c == 'p')
			setenv("UBLKZC_PROFILE", optarg, 1);
		else if (c == 'l')
			w->library = optarg;
		else {
			fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 1 : EXIT_USAGE + 1;
		}
	}
	if (optind == argc) {
		fputs(usage, stderr);
		return EXIT_USAGE + 1;
	}
	w->program = argv + optind;
	return 0;
}

int verb_run(int argc, char **argv)
{
	struct report_file *file;
	struct snapshot *before, *after;
	struct wish w;
	int ret = parse(argc, argv, &w);
	int status;

	if (ret)
		return ret - 1;
	before = calloc(2, sizeof(*before));
	if (!before || run_program_preload(w.library)) {
		free(before);
		return EXIT_FAILURE;
	}
	/* Without it there is less to say, but the program runs. */
	if (!w.quiet)
		run_report_make();
	after = before + 1;
	take_snapshot(before);
	status = run_program(w.program);
	file = run_report_take();
	if (!w.quiet) {
		take_snapshot(after);
		if (file && (w.explain || !file->next))
			say_programs(file, w.program[0]);
		say_devices(before, after, w.explain);
	}
	free(file);
	free(before);
	return status;
}
