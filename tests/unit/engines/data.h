/* SPDX-License-Identifier: MIT */
/* data.h - what the tests of engines write, and whether it is what they read. */
#ifndef UBLKZC_TESTS_ENGINES_DATA_H
#define UBLKZC_TESTS_ENGINES_DATA_H

#include <stdint.h>

/* Bytes that tell their place and @seed. */
void fill(uint8_t *data, uint32_t len, unsigned int seed);
void assert_bytes(const uint8_t *data, uint32_t len, unsigned int seed);

/*
 * Random blocks of the open engine, in up to four pieces, are written and read again, one after
 * the other.  @size: bytes that it has; @stored: where they can be seen, or NULL.
 */
void write_and_read(unsigned int turns, uint64_t size, const uint8_t *stored);

#endif
