/* SPDX-License-Identifier: MIT */
/* vectors.c - see vectors.h; the format is described in the file itself. */
#include "vectors.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/cmocka_all.h"

static unsigned int hex_digit(int c)
{
	assert_true(isxdigit(c));
	return (unsigned int)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
}

static void read_bytes(struct vector *v, const char *text)
{
	for (; *text; text++) {
		if (isspace((unsigned char)*text))
			continue;
		assert_true(v->len < sizeof(v->bytes));
		v->bytes[v->len++] = (uint8_t)(hex_digit((unsigned char)text[0]) << 4 |
					       hex_digit((unsigned char)text[1]));
		text++;
	}
}

static void read_field(struct vector *v, const char *name, const char *text)
{
	char *end;

	if (v->nr_fields == VECTOR_FIELDS_MAX || strlen(name) >= sizeof(v->fields[0].name))
		fail_msg("%s: field '%s'", v->name, name);
	strcpy(v->fields[v->nr_fields].name, name);
	v->fields[v->nr_fields++].value = strtoll(text, &end, 0);
	if (end == text || *end)
		fail_msg("%s: %s is '%s', which is no number", v->name, name, text);
}

static void read_verdict(struct vector *v, const char *text)
{
	if (strncmp(text, "accepted", 8) == 0) {
		v->verdict = VECTOR_ACCEPTED;
		v->loosely = strcmp(text, "accepted, loosely") == 0;
	} else if (strcmp(text, "declined") == 0) {
		v->verdict = VECTOR_DECLINED;
	} else if (strcmp(text, "malformed") == 0) {
		v->verdict = VECTOR_MALFORMED;
	} else {
		v->verdict = VECTOR_REFUSED;
		if (sscanf(text, "refused %u", &v->reason) != 1)
			fail_msg("%s: is '%s'", v->name, text);
	}
}

/* True: that was its last line. */
static bool read_line(struct vector *v, char *line)
{
	char *value = strchr(line, ' ');

	if (value)
		*value++ = '\0';
	if (!value || strcmp(line, "request") == 0) {
		v->reply = strcmp(line, "reply") == 0;
		if (!v->reply && (!value || sscanf(value, "with %u", &v->nr_fds) != 1))
			fail_msg("%s: '%s'", v->name, line);
	} else if (strcmp(line, "vector") == 0) {
		*v = (struct vector){ .len = 0 };
		snprintf(v->name, sizeof(v->name), "%s", value);
	} else if (strcmp(line, "bytes") == 0) {
		read_bytes(v, value);
	} else if (strcmp(line, "is") == 0) {
		read_verdict(v, value);
		return true;
	} else {
		read_field(v, line, value);
	}
	return false;
}

static unsigned int each(void (*test)(const struct vector *v), const char *name, struct vector *ret)
{
	FILE *f = fopen(WIRE_VECTORS, "re");
	struct vector v = { .len = 0 };
	unsigned int nr = 0;
	char line[256];

	if (!f)
		fail_msg("%s cannot be read", WIRE_VECTORS);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!line[0] || line[0] == '#' || !read_line(&v, line))
			continue;
		nr++;
		if (test)
			test(&v);
		if (name && strcmp(v.name, name) == 0)
			*ret = v;
	}
	fclose(f);
	return nr;
}

unsigned int vectors_each(void (*test)(const struct vector *v))
{
	return each(test, NULL, NULL);
}

int64_t vector_field(const struct vector *v, const char *name)
{
	for (unsigned int i = 0; i < v->nr_fields; i++)
		if (strcmp(v->fields[i].name, name) == 0)
			return v->fields[i].value;
	return 0;
}

struct vector vector_named(const char *name)
{
	struct vector v = { .len = 0 };

	each(NULL, name, &v);
	if (!v.len)
		fail_msg("no vector is called %s", name);
	return v;
}
