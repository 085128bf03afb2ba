/* SPDX-License-Identifier: MIT */
/* Blocks that grow, and how much of what is free stays. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload/blocks.h"
#include "preload/config.h"
#include "preload/memfile.h"
#include "tests/unit/cmocka_all.h"

#define MIB (1UL << 20)

/* As realloc does it; *@moved counts. */
static unsigned char *grown(unsigned char *p, size_t size, unsigned int *moved)
{
	size_t have = block_size(p);
	unsigned char *to;

	if (have >= size || block_resize(p, size))
		return p;
	to = block_alloc_growing(size);
	assert_non_null(to);
	memcpy(to, p, have);
	block_free(p);
	++*moved;
	return to;
}

static size_t resident(void)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY)
			sum += memfile_resident(&arenas[i].file, 0);
	return sum;
}

static unsigned int nr_growing(void)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		nr += arenas[i].state == ARENA_SHARED && arenas[i].growing;
	return nr;
}

static bool all_is_valid(void)
{
	bool valid;

	assert_true(blocks_lock_within(1000));
	valid = blocks_valid();
	blocks_unlock();
	return valid;
}

/* Copied once while it is small, and not again, whatever else is allocated meanwhile. */
static void what_grows_stays_where_it_is(void **state)
{
	unsigned char *p = block_alloc(4096, 4096, false);
	unsigned char *others[16];
	unsigned int moved = 0, nr = 0;
	size_t before = resident();

	(void)state;
	p[0] = 1;
	for (size_t size = 8192; size <= 512 * MIB; size *= 2) {
		p = grown(p, size, &moved);
		assert_true(block_size(p) >= size);
		p[size - 1] = 1;
		if (size >= MIB)
			others[nr++] = block_alloc(MIB, 4096, false);
	}
	assert_int_equal(moved, 1);
	for (size_t size = 8192; size <= 512 * MIB; size *= 2)
		assert_int_equal(p[size - 1], 1);
	assert_int_equal(p[0], 1);
	/* Nobody touched what lies between. */
	assert_true(resident() <= before + MIB);
	assert_true(all_is_valid());
	while (nr)
		block_free(others[--nr]);
	block_free(p);
}

static void many_grow_at_once(void **state)
{
	struct {
		unsigned char *p;
		size_t size;
	} of[40];
	unsigned int seed = 1, moved = 0;

	(void)state;
	for (unsigned int i = 0; i < 40; i++) {
		of[i].size = 4096;
		of[i].p = block_alloc(4096, 4096, false);
		of[i].p[0] = (unsigned char)i;
	}
	for (unsigned int step = 0; step < 2000; step++) {
		unsigned int i = (unsigned int)rand_r(&seed) % 40;

		assert_int_equal(of[i].p[0], i);
		assert_int_equal(of[i].p[of[i].size - 1], of[i].size == 4096 ? of[i].p[4095] : i);
		of[i].size += of[i].size / 4 & ~4095UL;
		of[i].size += 4096;
		if (of[i].size > 24 * MIB) {
			block_free(of[i].p);
			of[i].size = 4096;
			of[i].p = block_alloc(4096, 4096, false);
		} else {
			of[i].p = grown(of[i].p, of[i].size, &moved);
		}
		of[i].p[0] = of[i].p[of[i].size - 1] = (unsigned char)i;
	}
	assert_true(nr_growing() <= 8);
	assert_true(all_is_valid());
	for (unsigned int i = 0; i < 40; i++)
		block_free(of[i].p);
	assert_true(nr_growing() <= 1);
}

/* What a program says of all its memory meets what it has used. */
static void addresses_that_were_cut_off_come_back(void **state)
{
	unsigned char *p = block_alloc(MIB, 4096, false);
	unsigned int moved = 0;

	(void)state;
	p = grown(p, 2 * MIB, &moved);
	assert_int_equal(moved, 1);
	p[0] = 1;
	assert_true(blocks_lock_within(1000));
	arena_cut_all();
	for (unsigned int i = 0; i < arena_slots; i++)
		assert_true(!arenas[i].granules ||
			    arenas[i].len <= arenas[i].high * ARENA_GRANULE + ARENA_ALIGN);
	blocks_unlock();
	/* Nobody else's memory can come to lie there, and be taken for ours. */
	for (size_t at = 0; at < arena_reserved; at += ARENA_ALIGN)
		assert_ptr_equal(mmap(arena_base + at, 4096, PROT_NONE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
				 MAP_FAILED);
	p = grown(p, 32 * MIB, &moved);
	assert_int_equal(moved, 1);
	assert_int_equal(p[0], 1);
	p[32 * MIB - 1] = 1;
	block_free(p);
}

static void take_and_free(size_t size)
{
	unsigned char *p = block_alloc(size, 4096, false);

	assert_non_null(p);
	memset(p, 1, size);
	block_free(p);
}

/* Once goes back, what comes again stays, and what is larger than glibc would keep never does. */
static void what_comes_again_stays(void **state)
{
	(void)state;
	take_and_free(20 * MIB);
	assert_true(resident() <= 8 * MIB);
	take_and_free(20 * MIB);
	assert_true(resident() >= 20 * MIB);
	for (int i = 0; i < 4; i++) {
		take_and_free(60 * MIB);
		assert_true(resident() <= 40 * MIB);
	}
}

static int setup(void **state)
{
	char *none = NULL;

	(void)state;
	config_read(&none, &config);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_comes_again_stays), /* first: nothing has come yet */
		cmocka_unit_test(what_grows_stays_where_it_is),
		cmocka_unit_test(addresses_that_were_cut_off_come_back),
		cmocka_unit_test(many_grow_at_once),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
