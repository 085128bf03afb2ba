/* SPDX-License-Identifier: MIT */
/* What is populated for blocks: all of those that are used, and little of those that are not. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "preload/ahead.h"
#include "preload/blocks.h"
#include "preload/config.h"
#include "preload/idle.h"
#include "preload/shim.h"
#include "tests/unit/cmocka_all.h"

#define MIB (1UL << 20)
#define NR 48U
#define MOST (IDLE_BYTES + NR * MIB / 16)

static char *blocks[NR];

static int setup(void **state)
{
	char *none = NULL;

	(void)state;
	config_read(&none, &config);
	config.arena_first = 2 * NR * MIB; /* one, which ends with its last block */
	shim.on = true;
	for (unsigned int i = 0; i < NR; i++) {
		blocks[i] = block_alloc(MIB, 4096, false);
		if (!blocks[i])
			return -1;
	}
	return 0;
}

/* And their memory goes back, because no server has it. */
static int teardown(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < NR; i++)
		if (blocks[i])
			block_free(blocks[i]);
	return 0;
}

static bool exists(char *p)
{
	unsigned char there[MIB / 4096];

	assert_int_equal(mincore(p, MIB, there), 0);
	for (unsigned int i = 0; i < sizeof(there); i++)
		if (!(there[i] & 1))
			return false;
	return true;
}

static bool populated(char *p)
{
	ahead_block(p, MIB);
	if (exists(p))
		return true;
	usleep(20000); /* used blocks are found out about now and then, not each time */
	ahead_block(p, MIB);
	return exists(p);
}

static size_t populate_all(void)
{
	size_t nr = 0;

	for (unsigned int i = 0; i < NR; i++)
		nr += populated(blocks[i]);
	return nr;
}

static void all_blocks_that_are_filled_are_populated(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < NR; i++) {
		assert_true(populated(blocks[i]));
		memset(blocks[i], 1, MIB);
	}
}

static void few_that_are_not_are(void **state)
{
	size_t nr = populate_all();

	(void)state;
	assert_true(nr >= 4);
	assert_true(nr * MIB <= MOST);
	assert_true(arena_resident() <= MOST);
	/* and no more, however long one waits */
	usleep(50000);
	assert_false(populated(blocks[NR - 1]));
}

static void what_goes_back_makes_room(void **state)
{
	size_t nr = populate_all();

	(void)state;
	for (unsigned int i = 0; i < NR / 2; i++) {
		block_free(blocks[i]);
		blocks[i] = NULL;
	}
	assert_true(nr < NR / 2); /* all of those */
	assert_true(populated(blocks[NR - 1]));
}

/* Whoever has a block may do with it what he likes. */
static void looking_does_no_harm(void **state)
{
	size_t nr = populate_all();

	(void)state;
	for (unsigned int i = 0; i < NR; i++)
		assert_int_equal(mprotect(blocks[i], MIB, PROT_NONE), 0);
	assert_false(populated(blocks[NR - 1])); /* was looked at */
	for (unsigned int i = 0; i < NR; i++)
		assert_int_equal(mprotect(blocks[i], MIB, PROT_READ | PROT_WRITE), 0);
	for (unsigned int i = 0; i < nr; i++)
		assert_int_equal(blocks[i][0], 0);
	assert_true(arena_resident() <= MOST);
}

/* A part of a large block. */
static void no_call_populates_much(void **state)
{
	size_t before = arena_resident();
	char *p = block_alloc(256 * MIB, 4096, false);

	(void)state;
	assert_non_null(p);
	assert_int_equal(arena_resident(), before);
	assert_true(ahead_block(p, 256 * MIB));
	assert_true(arena_resident() - before <= AHEAD_BLOCK + AHEAD_NEXT);
	block_free(p);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(all_blocks_that_are_filled_are_populated),
		T(few_that_are_not_are),
		T(what_goes_back_makes_room),
		T(looking_does_no_harm),
		T(no_call_populates_much),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
