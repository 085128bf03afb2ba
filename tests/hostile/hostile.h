/* SPDX-License-Identifier: MIT */
/*
 * hostile.h - programs that are right without the shim, and were not with it.
 *
 * An attack is a function that returns when all was as the C library and the
 * kernel promise, and ends the process with a line of words when it was not.
 * It knows nothing of the shim: what it asks is what any program may ask.
 * Each runs in a process of its own (tests/hostile/run); file() is a file or a
 * disk of which 1 MiB may be overwritten.
 */
#ifndef UBLKZC_TESTS_HOSTILE_H
#define UBLKZC_TESTS_HOSTILE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "  %s:%d: %s (errno %d)\n", __FILE__, __LINE__, #what,     \
				errno);                                                            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

/* Not possible on this machine: says why, and is no failure. */
__attribute__((noreturn)) void skip(const char *why);

struct attack {
	const char *name;
	void (*run)(void);
	const char *what; /* that a program may rely on */
	bool slow;	  /* takes more than a few seconds */
};

extern const struct attack pinned_attacks[], fork_attacks[], lock_attacks[], kernel_attacks[],
	memory_attacks[], identity_attacks[], stack_attacks[], child_attacks[], other_attacks[],
	advice_attacks[];

/* The path given, and a descriptor of it: with O_DIRECT where there is that. */
const char *file(void);
int open_direct(void);

/* Memory as programs take it for direct I/O, aligned to 4096; filled with @value. */
unsigned char *aligned(size_t len, unsigned char value);
/* A private anonymous mapping, filled likewise. */
unsigned char *mapped(size_t len, unsigned char value);
bool all_are(const unsigned char *p, size_t len, unsigned char value);

/* fork(), checked; expect_well() waits for a child that must exit with 0. */
pid_t child(void);
void expect_well(pid_t pid);

/* Entries of /proc/self/fd; a field of /proc/self/status or smaps_rollup in KiB. */
unsigned int nr_descriptors(void);
unsigned long proc_kib(const char *path, const char *field);

double seconds(void);  /* CLOCK_MONOTONIC */
double patience(void); /* how long races are tried: HOSTILE_PATIENCE, 1 */

/* From tests/hostile/first_handlers.c: a library whose handlers of fork were
 * registered before those of any preloaded library. */
extern void (*first_prepare)(void);
extern void (*first_parent)(void);
extern void (*first_child)(void);

#endif
