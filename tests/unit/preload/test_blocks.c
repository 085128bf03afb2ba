/* SPDX-License-Identifier: MIT */
/* Random operations on the allocator against a simple model, from several threads. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "preload/blocks.h"
#include "preload/config.h"
#include "preload/shim.h"
#include "preload/stats.h"
#include "tests/unit/cmocka_all.h"

#define SLOTS 64
#define STEPS 20000

struct slot {
	unsigned char *p;
	size_t size;
	unsigned char fill;
};

struct worker {
	unsigned int seed;
	struct slot slots[SLOTS];
	int errors;
};

static size_t random_size(unsigned int *seed)
{
	/* mostly small, sometimes a megabyte or more */
	size_t size = (size_t)rand_r(seed) % 20000 + 1;

	return rand_r(seed) % 50 ? size : size * 100;
}

/* First, last and some byte between: all of it would take too long. */
static void fill(struct slot *s)
{
	s->p[0] = s->p[s->size / 2] = s->p[s->size - 1] = s->fill;
}

static int intact(const struct slot *s)
{
	return s->p[0] == s->fill && s->p[s->size / 2] == s->fill && s->p[s->size - 1] == s->fill;
}

static int all_zero(const unsigned char *p, size_t size)
{
	while (size--)
		if (*p++)
			return 0;
	return 1;
}

static void allocate(struct worker *w, struct slot *s)
{
	size_t align = (size_t)512 << rand_r(&w->seed) % 10;
	int zero = rand_r(&w->seed) % 4 == 0;

	s->size = random_size(&w->seed);
	s->fill = (unsigned char)(rand_r(&w->seed) | 1);
	s->p = block_alloc_cached(s->size, align);
	if (s->p && zero)
		memset(s->p, 0, s->size);
	if (!s->p)
		s->p = block_alloc(s->size, align, zero);
	if (!s->p || !arena_owns(s->p) || (uintptr_t)s->p % align || block_size(s->p) < s->size ||
	    (zero && !all_zero(s->p, s->size))) {
		w->errors++;
		s->p = NULL;
		return;
	}
	fill(s);
}

static void resize(struct worker *w, struct slot *s)
{
	size_t size = random_size(&w->seed);
	unsigned char first = s->p[0];

	if (!block_resize(s->p, size))
		return;
	w->errors += block_size(s->p) < size || s->p[0] != first;
	s->size = size;
	fill(s);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < STEPS; i++) {
		struct slot *s = &w->slots[rand_r(&w->seed) % SLOTS];

		if (!s->p) {
			allocate(w, s);
			continue;
		}
		w->errors += !intact(s);
		if (rand_r(&w->seed) % 4 == 0) {
			resize(w, s);
			continue;
		}
		if (!block_free_cached(s->p))
			block_free(s->p);
		s->p = NULL;
	}
	for (int i = 0; i < SLOTS; i++)
		if (w->slots[i].p)
			block_free(w->slots[i].p);
	return NULL;
}

static uint32_t used_granules(void)
{
	uint32_t used = 0;

	blocks_lock();
	blocks_drain_cache();
	blocks_unlock();
	for (unsigned int i = 0; i < arena_slots; i++)
		used += arenas[i].used;
	return used;
}

static void run_threads(int nr)
{
	static struct worker workers[4];
	pthread_t threads[4];
	bool valid;

	memset(workers, 0, sizeof(workers));
	for (int i = 0; i < nr; i++) {
		workers[i].seed = 42U + (unsigned int)i;
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (int i = 0; i < nr; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(workers[i].errors, 0);
	}
	blocks_lock();
	valid = blocks_valid();
	blocks_unlock();
	assert_true(valid);
	assert_int_equal(used_granules(), 0);
}

static void one_thread(void **state)
{
	(void)state;
	run_threads(1);
}

static void four_threads(void **state)
{
	(void)state;
	run_threads(4);
}

/* What alignment skips at the top joins a free run in front of it. */
static void free_runs_join_whatever_made_them(void **state)
{
	bool valid = true;

	(void)state;
	for (int round = 0; round < 40; round++) {
		char *a = block_alloc(4096, 4096, false);
		char *b;

		block_free(a); /* often the last block below the top */
		b = block_alloc((3UL << 20) + (size_t)round * 4096, 2UL << 20, false);
		blocks_lock();
		valid = valid && blocks_valid();
		blocks_unlock();
		if (round % 2)
			block_free(b);
	}
	assert_true(valid);
}

static void blocks_never_share_a_page(void **state)
{
	char *a = block_alloc(1, 512, false);
	char *b = block_alloc(513, 512, false);

	(void)state;
	assert_true((uintptr_t)a / 4096 != (uintptr_t)b / 4096);
	block_free(a);
	block_free(b);
}

static void what_is_no_block_is_ignored(void **state)
{
	char *p = block_alloc(3 * 4096, 4096, false);
	unsigned long long before = stat_get(STAT_BAD_FREE);

	(void)state;
	block_free(p + 1);
	block_free(p + 4096);
	block_free(arena_base + arena_reserved - 4096);
	assert_int_equal(stat_get(STAT_BAD_FREE), before + 3);
	assert_int_equal(block_size(p), 3 * 4096);
	block_free(p);
	block_free(p); /* twice */
	assert_int_equal(stat_get(STAT_BAD_FREE), before + 4);
}

static void a_block_is_cached_once(void **state)
{
	char *p = block_alloc(4096, 4096, false);
	unsigned long long before = stat_get(STAT_BAD_FREE);

	(void)state;
	assert_true(block_free_cached(p));
	assert_false(block_free_cached(p)); /* twice */
	assert_false(block_free_cached(p + 1));
	block_free(p);
	assert_int_equal(stat_get(STAT_BAD_FREE), before + 1);
	assert_int_equal(block_size(p), 0);
	assert_ptr_equal(block_alloc_cached(4096, 4096), p);
	assert_null(block_alloc_cached(4096, 4096));
	assert_null(block_alloc_cached(0, 4096));
	assert_int_equal(block_size(p), 4096);
	block_free(p);
}

static void what_does_not_fit_is_left_to_libc(void **state)
{
	(void)state;
	assert_null(block_alloc(ARENA_SIZE_MAX + 1, 4096, false));
	assert_null(block_alloc(4096, 4UL << 20, false));
	assert_false(arena_owns(&state));
	assert_false(arena_owns(NULL));
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
		cmocka_unit_test(one_thread),
		cmocka_unit_test(four_threads),
		cmocka_unit_test(blocks_never_share_a_page),
		cmocka_unit_test(free_runs_join_whatever_made_them),
		cmocka_unit_test(what_is_no_block_is_ignored),
		cmocka_unit_test(a_block_is_cached_once),
		cmocka_unit_test(what_does_not_fit_is_left_to_libc),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
