/* SPDX-License-Identifier: MIT */
/*
 * output.h - how verbs show things: columns for people, JSON for programs.
 *
 * What --json prints is one object; ublkzc-json(5) has its fields. OUTPUT_SCHEMA goes up when a
 * field that was there changes its meaning or goes; new ones may come without.
 */
#ifndef UBLKZC_SERVER_CLI_OUTPUT_H
#define UBLKZC_SERVER_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OUTPUT_SCHEMA 1
#define OUTPUT_COLUMNS 12U
#define OUTPUT_SIZE 32U /* bytes that size_text() and time_text() write at most */

/* "1.5 GiB"; with @exact "1610612736".  Returns @buf. */
char *size_text(char buf[OUTPUT_SIZE], uint64_t bytes, bool exact);

/* "105 us", "2.1 ms", "3.0 s".  Returns @buf. */
char *time_text(char buf[OUTPUT_SIZE], uint64_t ns);

/* A string of whatever bytes a path has: what is not UTF-8 becomes U+FFFD. */
json_t *json_text(const char *text);

/* Print {"schema": ..., @name: @value}, giving @value up.  0, or -ENOMEM, said.  Whether it could
 * be written, ferror(3) says. */
int json_print(const char *name, json_t *value);
int json_print_line(const char *name, json_t *value); /* in one line */
int json_print_to(FILE *file, const char *name, json_t *value);

/* ---- columns ---- */

struct table {
	unsigned int columns;
	unsigned int right; /* bit N: column N is a number */
	char **cells;
	size_t nr, room;
};

/* @headings: as many as columns. */
void table_begin(struct table *t, const char *const *headings, unsigned int columns,
		 unsigned int right);
/* Row by row.  Copies @text; "" is shown as "-". */
void table_cell(struct table *t, const char *text);
void table_cellf(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints it to standard output, and frees it.  Nothing but headings: prints nothing. */
void table_end(struct table *t);

#endif
