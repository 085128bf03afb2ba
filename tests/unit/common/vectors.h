/* SPDX-License-Identifier: MIT */
/*
 * vectors.h - docs/wire-vectors, for the unit tests of both sides.
 *
 * What is there is the specification's, so it is read as bytes and numbers, and nothing here
 * comes from common/wire.c.
 */
#ifndef UBLKZC_TESTS_UNIT_COMMON_VECTORS_H
#define UBLKZC_TESTS_UNIT_COMMON_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VECTOR_BYTES_MAX 128
#define VECTOR_FIELDS_MAX 16

enum vector_verdict { VECTOR_ACCEPTED, VECTOR_REFUSED, VECTOR_DECLINED, VECTOR_MALFORMED };

struct vector {
	char name[64];
	bool reply; /* or a request */
	unsigned int nr_fds;
	uint8_t bytes[VECTOR_BYTES_MAX];
	size_t len;
	enum vector_verdict verdict;
	unsigned int reason; /* REFUSED */
	bool loosely;	     /* ACCEPTED, with bytes that nobody reads */
	unsigned int nr_fields;
	struct {
		char name[16];
		int64_t value;
	} fields[VECTOR_FIELDS_MAX];
};

/* Call @test for each; a file that cannot be read or says nonsense fails the test.
 * Returns how many there were. */
unsigned int vectors_each(void (*test)(const struct vector *v));

/* What @v says of its field @name: 0 if nothing. */
int64_t vector_field(const struct vector *v, const char *name);

/* The vector of that name. */
struct vector vector_named(const char *name);

#endif
