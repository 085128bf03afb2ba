/* SPDX-License-Identifier: MIT */
/* output.c - see output.h. */
#include "output.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

char *size_text(char buf[OUTPUT_SIZE], uint64_t bytes, bool exact)
{
	static const char units[] = "KMGTPE";
	double n = (double)bytes;
	unsigned int unit = 0;

	if (exact || bytes < 1024) {
		snprintf(buf, OUTPUT_SIZE, "%llu%s", (unsigned long long)bytes, exact ? "" : " B");
		return buf;
	}
	while ((n /= 1024) >= 1023.95)
		unit++;
	snprintf(buf, OUTPUT_SIZE, "%.*f %ciB", n == (double)(uint64_t)n ? 0 : 1, n, units[unit]);
	return buf;
}

char *time_text(char buf[OUTPUT_SIZE], uint64_t ns)
{
	double us = (double)ns / 1000;

	if (us < 999.5)
		snprintf(buf, OUTPUT_SIZE, "%.0f us", us);
	else if (us < 999950)
		snprintf(buf, OUTPUT_SIZE, "%.1f ms", us / 1000);
	else
		snprintf(buf, OUTPUT_SIZE, "%.1f s", us / 1e6);
	return buf;
}

/* The length of the UTF-8 character at @p, 0 if there is none. */
static size_t character(const char *p)
{
	for (size_t len = 1; len <= 4; len++) {
		json_t *one = json_stringn(p, len);

		if (one) {
			json_decref(one);
			return len;
		}
		if (!p[len])
			break;
	}
	return 0;
}

json_t *json_text(const char *text)
{
	static const char replacement[] = "\xef\xbf\xbd";
	json_t *ret = json_string(text);
	char *clean;
	size_t used = 0;

	if (ret)
		return ret;
	clean = malloc(3 * strlen(text) + 1);
	if (!clean)
		return NULL;
	while (*text) {
		size_t len = character(text);

		memcpy(clean + used, len ? text : replacement, len ? len : 3);
		used += len ? len : 3;
		text += len ? len : 1;
	}
	ret = json_stringn(clean, used);
	free(clean);
	return ret;
}

static int print(FILE *file, const char *name, json_t *value, size_t how)
{
	json_t *all = json_pack("{s:i, s:o}", "schema", OUTPUT_SCHEMA, name, value);

	if (!all)
		return log_error(-ENOMEM, "print JSON");
	json_dumpf(all, file, how);
	fputc('\n', file);
	json_decref(all);
	return 0;
}

int json_print_to(FILE *file, const char *name, json_t *value)
{
	return print(file, name, value, JSON_INDENT(2));
}

int json_print(const char *name, json_t *value)
{
	return json_print_to(stdout, name, value);
}

int json_print_line(const char *name, json_t *value)
{
	return print(stdout, name, value, JSON_COMPACT);
}

/* ---- columns ---- */

void table_begin(struct table *t, const char *const *headings, unsigned int columns,
		 unsigned int right)
{
	*t = (struct table){ .columns = columns, .right = right };
	for (unsigned int i = 0; i < columns; i++)
		table_cell(t, headings[i]);
}

/* A name may have anything in it, a terminal obeys some of that. */
static char *printable(const char *text)
{
	char *ret = strdup(*text ? text : "-");

	for (char *p = ret; p && *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return ret;
}

void table_cell(struct table *t, const char *text)
{
	char *cell = printable(text);

	if (t->nr == t->room) {
		t->room = t->room ? 2 * t->room : 64;
		t->cells = realloc(t->cells, t->room * sizeof(*t->cells));
	}
	if (!t->cells || !cell) {
		log_error(-ENOMEM, "print a table");
		exit(EXIT_FAILURE);
	}
	t->cells[t->nr++] = cell;
}

void table_cellf(struct table *t, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	table_cell(t, text);
}

/* In characters, as a terminal has them: not the following bytes of UTF-8. */
static unsigned int width(const char *text)
{
	unsigned int n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static unsigned int widest(const struct table *t, unsigned int column)
{
	unsigned int most = 0;

	for (size_t i = column; i < t->nr; i += t->columns)
		if (width(t->cells[i]) > most)
			most = width(t->cells[i]);
	return most;
}

static void print_cell(const struct table *t, size_t i, unsigned int most)
{
	unsigned int column = (unsigned int)(i % t->columns);
	unsigned int pad = most - width(t->cells[i]);
	bool last = column + 1 == t->columns;

	if (t->right >> column & 1)
		printf("%*s%s", (int)pad, "", t->cells[i]);
	else
		printf("%s%*s", t->cells[i], last ? 0 : (int)pad, "");
	fputs(last ? "\n" : "  ", stdout);
}

void table_end(struct table *t)
{
	unsigned int most[OUTPUT_COLUMNS] = { 0 };

	for (unsigned int i = 0; i < t->columns; i++)
		most[i] = widest(t, i);
	for (size_t i = 0; t->columns && i < t->nr; i++) {
		if (t->nr > t->columns)
			print_cell(t, i, most[i % t->columns]);
		free(t->cells[i]);
	}
	free(t->cells);
	*t = (struct table){ 0 };
}
