/* SPDX-License-Identifier: MIT */
/*
 * verb_run.c - "run": a program under libublkzc.so, and what came of it.
 *
 * What is said comes from two sides: the processes' own reports (common/report.h),
 * and the servers' counters, which are the truth about what was copied.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/report.h"
#include "command.h"
#include "output.h"
#include "run_devices.h"
#include "run_learn.h"
#include "run_program.h"
#include "run_report.h"
#include "run_where.h"
#include "verbs.h"

struct wish {
	bool explain, quiet, bytes, learn;
	const char *library;
	const char *json; /* the file for it; NULL: none */
	FILE *json_file;
	char **program;
};

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

static void write_json(const struct wish *w, const struct run_devices *before,
		       const struct run_devices *after, int status)
{
	int bad;

	json_print_to(w->json_file, "run",
		      json_pack("{s:o, s:i, s:o}", "program", json_text(w->program[0]), "status",
				status, "devices", run_devices_json(before, after)));
	bad = ferror(w->json_file);
	if (fclose(w->json_file) || bad)
		log_error(-errno, "--json %s", w->json);
}

/* ---- the verb ---- */

static const struct flag flags[] = {
	{ 'e', "explain", WORD_NONE, NULL, "also what was captured, and why the rest was copied" },
	{ 'q', "quiet", WORD_NONE, NULL, "say nothing" },
	{ 'b', "bytes", WORD_NONE, NULL, "sizes in bytes" },
	{ 'c', "capture", WORD_CHOICE, "auto|none|aligned|malloc|mmap|all",
	  "which memory: UBLKZC_CAPTURE" },
	{ 'f', "fork", WORD_CHOICE, "auto|copy|private", "what forks do: UBLKZC_FORK" },
	{ 'p', "profile", WORD_ANY, "LINE", "'PROGRAM malloc mmap ...': UBLKZC_PROFILE" },
	{ 'j', "json", WORD_FILE, "FILE",
	  "write what was zero-copy to FILE, for programs: ublkzc-json(5)" },
	{ 'L', "learn", WORD_NONE, NULL,
	  "run it again and again to find its profile, and write that down" },
	{ 'l', "library", WORD_FILE, "PATH", "the libublkzc.so to preload" },
};

static void set(struct wish *w, int key, const char *value)
{
	switch (key) {
	case 'e':
		w->explain = true;
		break;
	case 'L':
		w->learn = true;
		break;
	case 'q':
		w->quiet = true;
		break;
	case 'b':
		w->bytes = true;
		break;
	case 'c':
		setenv("UBLKZC_CAPTURE", value, 1);
		break;
	case 'f':
		setenv("UBLKZC_FORK", value, 1);
		break;
	case 'p':
		setenv("UBLKZC_PROFILE", value, 1);
		break;
	case 'j':
		w->json = value;
		break;
	default:
		w->library = value;
	}
}

static int parse(struct command_line *line, struct wish *w)
{
	int key;

	while ((key = command_next(line)) > 0)
		set(w, key, line->value);
	if (!key && !line->nr_operands)
		return command_error(line->command, "which program?");
	if (!key && w->quiet && w->explain)
		return command_error(line->command, "--quiet, or --explain, but not both");
	if (!key && w->learn && (w->quiet || w->json))
		return command_error(line->command, "--learn goes with neither --quiet nor --json");
	w->program = line->operands;
	return key;
}

static int run_and_tell(const struct wish *w)
{
	struct run_devices *before = calloc(2, sizeof(*before));
	struct run_devices *after;
	struct run_where *where;
	struct report_file *file;
	int status;

	if (!before)
		return EXIT_FAILURE;
	after = before + 1;
	/* Without it there is less to say, but the program runs. */
	if (!w->quiet)
		run_report_make();
	run_devices_look(before);
	where = w->explain ? run_where_begin() : NULL;
	status = run_program(w->program, where ? run_where_look : NULL, where);
	file = run_report_take();
	run_devices_look(after);
	if (w->json)
		write_json(w, before, after, status);
	if (!w->quiet) {
		if (file && (w->explain || !file->next))
			say_programs(file, w->program[0]);
		run_devices_say(before, after, w->explain, w->bytes);
		run_where_say(where);
	}
	free(file);
	free(before);
	return status;
}

static int run(const struct command *command, int argc, char **argv)
{
	struct command_line line;
	struct wish w = { 0 };
	int ret;

	command_begin(&line, command, argc, argv);
	ret = parse(&line, &w);
	if (ret)
		return command_status(ret);
	if (w.json && !(w.json_file = fopen(w.json, "we"))) {
		log_error(-errno, "--json %s", w.json);
		return EXIT_FAILURE;
	}
	if (run_program_preload(w.library))
		return EXIT_FAILURE;
	run_learnt();
	return w.learn ? run_learn(w.program) : run_and_tell(&w);
}

const struct command command_run = {
	.name = "run",
	.summary = "run a program under libublkzc.so and say what was zero-copy",
	.operands = "[--] PROGRAM [ARGUMENTS...]",
	.operand = WORD_PROGRAM,
	.about = "Afterwards it says, on standard error, how much of the program's I/O on ublk "
		 "devices was zero-copy. The exit status is the program's.\n"
		 "--explain also names the file that most of what was copied is of, where the "
		 "file system is on the device or a partition of it and the file can be read.\n"
		 "--learn runs it up to five times, each time with more of its memory captured, "
		 "until "
		 "95 % of its I/O is zero-copy, and writes the cheapest profile that does it to "
		 "~/.config/ublkzc/profiles (root: /etc/ublkzc/profiles). run looks there by "
		 "itself; for "
		 "a program that is started otherwise, UBLKZC_PROFILES names it. Only for a "
		 "program that "
		 "may be run again and again.",
	FLAGS(flags),
	.run = run,
};
