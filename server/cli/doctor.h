/* SPDX-License-Identifier: MIT */
/*
 * doctor.h - what stands between this machine and zero copy.
 *
 * Each look appends findings, the causes before what follows from them: the first that is bad
 * decides the verdict, and its way out is the next command.
 */
#ifndef UBLKZC_SERVER_CLI_DOCTOR_H
#define UBLKZC_SERVER_CLI_DOCTOR_H

#include <stdbool.h>
#include <sys/types.h>

enum grade {
	GRADE_OK,
	GRADE_NOTE, /* good to know; zero copy all the same */
	GRADE_BAD,  /* no zero copy */
};

#define DOCTOR_TEXT 240U /* bytes of a text, its end included */
#define DOCTOR_FINDINGS 64U

struct finding {
	const char *what; /* a word */
	enum grade grade;
	char text[DOCTOR_TEXT];
	char next[DOCTOR_TEXT]; /* a command, or what to do; empty: nothing */
};

struct doctor {
	struct finding findings[DOCTOR_FINDINGS];
	unsigned int nr;
	bool contained;	    /* in a container: a pid or user namespace of its own */
	int device;	    /* of a server that can be used from here; -1: none */
	const char *wanted; /* NULL, or the program that was named */
};

/* Appends one, and returns it for finding_next(). */
struct finding *doctor_say(struct doctor *d, const char *what, enum grade grade, const char *format,
			   ...) __attribute__((format(printf, 4, 5)));
/* What to do about it. */
void finding_next(struct finding *f, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* doctor_machine.c: the kernel, the driver, io_uring, memory and limits. */
void doctor_machine(struct doctor *d);

/* doctor_devices.c: the servers, and whether this user reaches them from here. */
void doctor_devices(struct doctor *d);

/* doctor_program.c: can libublkzc.so be preloaded into @program, and what would it capture? */
void doctor_program(struct doctor *d, const char *program);
/* ... and into what runs as process @pid? */
void doctor_process(struct doctor *d, pid_t pid);

#endif
