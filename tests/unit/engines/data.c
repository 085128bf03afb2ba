/* SPDX-License-Identifier: MIT */
/* data.c - see data.h. */
#include "data.h"

#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "tests/unit/cmocka_all.h"

static uint8_t byte_at(uint32_t i, unsigned int seed)
{
	return (uint8_t)(seed * 31 + i * 7 + i / 256);
}

void fill(uint8_t *data, uint32_t len, unsigned int seed)
{
	for (uint32_t i = 0; i < len; i++)
		data[i] = byte_at(i, seed);
}

void assert_bytes(const uint8_t *data, uint32_t len, unsigned int seed)
{
	for (uint32_t i = 0; i < len; i++)
		if (data[i] != byte_at(i, seed))
			fail_msg("byte %u is %u", i, data[i]);
}

static void finish(enum ublkzc_op op, uint64_t offset, uint8_t *data, uint32_t len, unsigned int nr)
{
	struct task t;

	begin(&t, op, offset, data, len, nr);
	assert_true(await(&t, 60));
	assert_int_equal(t.res, 0);
}

void write_and_read(unsigned int turns, uint64_t size, const uint8_t *stored)
{
	static uint8_t wrote[HOST_MAX_IO], got[HOST_MAX_IO];

	srand(1);
	for (unsigned int turn = 0; turn < turns; turn++) {
		uint32_t len = 512 * (1 + (uint32_t)rand() % (HOST_MAX_IO / 512));
		uint64_t offset = 512 * ((uint64_t)rand() % ((size - len) / 512 + 1));
		unsigned int nr = 1 + (unsigned int)rand() % (len / 512 < 4 ? 1 : 4);

		fill(wrote, len, turn);
		finish(UBLKZC_WRITE, offset, wrote, len, nr);
		if (stored)
			assert_memory_equal(stored + offset, wrote, len);
		memset(got, 0, len);
		finish(UBLKZC_READ, offset, got, len, nr);
		assert_memory_equal(got, wrote, len);
	}
}
