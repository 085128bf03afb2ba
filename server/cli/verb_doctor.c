/* SPDX-License-Identifier: MIT */
/* verb_doctor.c - "doctor": is zero copy possible here, if not why not, and what to do next. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "command.h"
#include "doctor.h"
#include "help.h"
#include "output.h"
#include "sizes.h"
#include "verbs.h"

#define DOCTOR_INDENT 16U /* columns */

struct finding *doctor_say(struct doctor *d, const char *what, enum grade grade, const char *format,
			   ...)
{
	static struct finding overflow;
	struct finding *f = d->nr < DOCTOR_FINDINGS ? &d->findings[d->nr++] : &overflow;
	va_list args;

	*f = (struct finding){ .what = what, .grade = grade };
	va_start(args, format);
	vsnprintf(f->text, sizeof(f->text), format, args);
	va_end(args);
	return f;
}

void finding_next(struct finding *f, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(f->next, sizeof(f->next), format, args);
	va_end(args);
}

/* ---- the verdict ---- */

static const struct finding *first_bad(const struct doctor *d)
{
	for (unsigned int i = 0; i < d->nr; i++)
		if (d->findings[i].grade == GRADE_BAD)
			return &d->findings[i];
	return NULL;
}

static const char *verdict(const struct doctor *d, char *next)
{
	const struct finding *bad = first_bad(d);

	if (bad) {
		snprintf(next, DOCTOR_TEXT, "%s", bad->next);
		return "no zero copy yet";
	}
	snprintf(next, DOCTOR_TEXT, "ublkzc run --explain -- %.100s ...",
		 d->wanted ? d->wanted : "PROGRAM");
	return "ready for zero copy";
}

static const char *const grades[] = { "ok", "note", "bad" };

static void print_text(const struct doctor *d)
{
	char next[DOCTOR_TEXT];
	const char *what = verdict(d, next);
	const struct finding *bad = first_bad(d);

	for (unsigned int i = 0; i < d->nr; i++) {
		const struct finding *f = &d->findings[i];

		printf("%-9s %-5s ", f->what, grades[f->grade]);
		help_wrap(stdout, f->text, DOCTOR_INDENT, DOCTOR_INDENT);
		if (f->next[0] && f != bad) {
			printf("%*s", (int)DOCTOR_INDENT, "-> ");
			help_wrap(stdout, f->next, DOCTOR_INDENT, DOCTOR_INDENT);
		}
	}
	printf("\nverdict: ");
	help_wrap(stdout, what, 9, 9);
	if (bad) {
		printf("why:     ");
		help_wrap(stdout, bad->text, 9, 9);
	}
	if (next[0])
		printf("next:    %s\n", next);
}

static int print_json(const struct doctor *d)
{
	char next[DOCTOR_TEXT];
	const char *what = verdict(d, next);
	json_t *findings = json_array();

	for (unsigned int i = 0; i < d->nr; i++) {
		const struct finding *f = &d->findings[i];

		json_array_append_new(findings,
				      json_pack("{s:s, s:s, s:o, s:o}", "what", f->what, "grade",
						grades[f->grade], "text", json_text(f->text),
						"next", json_text(f->next)));
	}
	return json_print("doctor",
			  json_pack("{s:b, s:s, s:o, s:o}", "ready", !first_bad(d), "verdict", what,
				    "next", json_text(next), "findings", findings));
}

/* ---- the verb ---- */

struct wish {
	bool json;
	pid_t pid;
};

static const struct flag flags[] = {
	{ 'p', "pid", WORD_PID, "PID", "a program that is running" },
	FLAG_JSON('j'),
};

static int parse(struct command_line *line, struct wish *w)
{
	uint64_t pid;
	int key;

	while ((key = command_next(line)) > 0) {
		w->json |= key == 'j';
		if (key != 'p')
			continue;
		if (number_parse(line->value, 1, INT32_MAX, &pid))
			return command_error(line->command, "--pid '%s': not a process",
					     line->value);
		w->pid = (pid_t)pid;
	}
	if (!key && w->pid && line->nr_operands)
		return command_error(line->command, "--pid, or PROGRAM, but not both");
	return key;
}

static int doctor(const struct command *command, int argc, char **argv)
{
	static struct doctor d = { .device = -1 };
	struct command_line line;
	struct wish w = { 0 };
	int ret;

	command_begin(&line, command, argc, argv);
	ret = parse(&line, &w);
	if (ret)
		return command_status(ret);
	doctor_machine(&d);
	if (line.nr_operands) {
		d.wanted = line.operands[0];
		doctor_program(&d, d.wanted);
	}
	if (w.pid)
		doctor_process(&d, w.pid);
	doctor_devices(&d);
	if (w.json && print_json(&d))
		return EXIT_FAILURE;
	if (!w.json)
		print_text(&d);
	return first_bad(&d) ? EXIT_FAILURE : 0;
}

const struct command command_doctor = {
	.name = "doctor",
	.summary = "is zero copy possible here, if not why not, and what to do next",
	.operands = "[PROGRAM [ARGUMENTS...]]",
	.operand = WORD_PROGRAM,
	.about = "Looks at kernel, driver, io_uring, memory, limits, servers and the rights of who "
		 "asks; with PROGRAM also whether libublkzc.so works in it and what it would "
		 "capture: the program is loaded for that, and ends before it runs. Run it as the "
		 "user, and in the container, that the program will have.\n"
		 "Exit status: 0 ready for zero copy, 1 not.",
	FLAGS(flags),
	.run = doctor,
};
