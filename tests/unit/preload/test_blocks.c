/* SPDX-License-Identifier: MIT */
/* Random operations on the allocator against a simple model, from several threads. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/blocks.h"
#include "preload/config.h"
#include "preload/fork.h"
#include "preload/lock.h"
#include "preload/mappings.h"
#include "preload/memfile.h"
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
	int declined;
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
	if (rand_r(&w->seed) % 8 == 0 && !zero && align <= 4096)
		s->p = block_alloc_growing(s->size);
	else
		s->p = block_alloc_cached(s->size, align);
	if (s->p && zero)
		memset(s->p, 0, s->size);
	if (!s->p)
		s->p = block_alloc(s->size, align, zero);
	if (!s->p) { /* the lock was held: libc would have it */
		w->declined++;
		usleep(100);
		return;
	}
	if (!arena_owns(s->p) || (uintptr_t)s->p % align || block_size(s->p) < s->size ||
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

	assert_true(blocks_lock_within(1000));
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
		assert_true(workers[i].declined < (nr > 1 ? STEPS / 2 : 1));
	}
	assert_true(blocks_lock_within(1000));
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
	char *b[40];

	(void)state;
	for (int round = 0; round < 40; round++) {
		char *a = block_alloc(4096, 4096, false);

		block_free(a); /* often the last block below the top */
		b[round] = block_alloc((3UL << 20) + (size_t)round * 4096, 2UL << 20, false);
		assert_true(blocks_lock_within(1000));
		valid = valid && blocks_valid();
		blocks_unlock();
		if (round % 2)
			block_free(b[round]);
	}
	for (int round = 0; round < 40; round += 2)
		block_free(b[round]);
	assert_true(valid);
	assert_int_equal(used_granules(), 0);
}

/* Sectors share pages, what is larger has pages of its own. */
static void small_blocks_are_slots(void **state)
{
	char *p[9];

	(void)state;
	for (int i = 0; i < 9; i++) {
		p[i] = block_alloc(512, 512, false);
		assert_non_null(p[i]);
		assert_int_equal((uintptr_t)p[i] % 512, 0);
		assert_int_equal(block_size(p[i]), 512);
		memset(p[i], i, 512);
	}
	assert_true((uintptr_t)p[0] / 4096 == (uintptr_t)p[7] / 4096);
	assert_true((uintptr_t)p[0] / 4096 != (uintptr_t)p[8] / 4096);
	for (int i = 0; i < 9; i++) {
		assert_int_equal(p[i][0], i);
		assert_int_equal(p[i][511], i);
		block_free(p[i]);
	}
	p[0] = block_alloc(600, 512, false);
	assert_int_equal(block_size(p[0]), 1024);
	p[1] = block_alloc(512, 2048, false);
	assert_int_equal((uintptr_t)p[1] % 2048, 0);
	p[2] = block_alloc(2049, 512, false);
	assert_int_equal(block_size(p[2]), 4096);
	for (int i = 0; i < 3; i++)
		block_free(p[i]);
	assert_int_equal(used_granules(), 0);
}

static void expect_abort(void (*wrong)(char *p), size_t size)
{
	char *p = block_alloc(size, 512, false);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		close(2); /* what is said is expected */
		signal(SIGABRT, SIG_DFL);
		wrong(p);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	block_free(p);
}

static void free_twice(char *p)
{
	block_free(p);
	block_free(p);
}

static void free_cached_twice(char *p)
{
	if (!block_free_cached(p))
		block_free(p);
	if (!block_free_cached(p))
		block_free(p);
}

static void free_inside(char *p)
{
	block_free(p + 1);
}

static void free_second_page(char *p)
{
	block_free(p + 4096);
}

static void free_last_page(char *p)
{
	block_free(p + 2 * 4096);
}

static void free_nowhere(char *p)
{
	(void)p;
	block_free(arena_base + arena_reserved - 4096);
}

/* As with glibc: it is the program's error, and going on would hide it. */
static void wrong_frees_abort(void **state)
{
	(void)state;
	expect_abort(free_twice, 3 * 4096UL);
	expect_abort(free_twice, 512);
	expect_abort(free_cached_twice, 3 * 4096UL);
	expect_abort(free_inside, 3 * 4096UL);
	expect_abort(free_inside, 512);
	expect_abort(free_second_page, 3 * 4096UL);
	expect_abort(free_last_page, 3 * 4096UL);
	expect_abort(free_nowhere, 4096);
}

static void a_block_is_cached_once(void **state)
{
	char *p = block_alloc(4096, 4096, false);

	(void)state;
	assert_true(block_free_cached(p));
	assert_false(block_free_cached(p)); /* twice */
	assert_false(block_free_cached(p + 1));
	assert_int_equal(block_size(p), 0);
	assert_ptr_equal(block_alloc_cached(4096, 4096), p);
	assert_null(block_alloc_cached(4096, 4096));
	assert_null(block_alloc_cached(0, 4096));
	assert_int_equal(block_size(p), 4096);
	block_free(p);
}

/* ---- nobody waits for the lock ---- */

static void *hold_the_lock(void *arg)
{
	int *turn = arg;

	assert_true(lock_take());
	assert_int_equal(write(turn[1], "", 1), 1); /* held */
	assert_int_equal(read(turn[2], turn, 1), 1);
	lock_drop();
	return NULL;
}

/* The holder may be stopped for as long as it likes. */
static void a_stopped_holder_stops_nobody(void **state)
{
	int held[2], go[2], turn[3];
	char *run = block_alloc(20000, 4096, false);
	char *slot = block_alloc(512, 512, false);
	pthread_t holder;
	char byte;

	(void)state;
	assert_int_equal(pipe(held), 0);
	assert_int_equal(pipe(go), 0);
	turn[0] = 0, turn[1] = held[1], turn[2] = go[0];
	assert_int_equal(pthread_create(&holder, NULL, hold_the_lock, turn), 0);
	assert_int_equal(read(held[0], &byte, 1), 1);
	assert_null(block_alloc(20000, 4096, false));
	assert_null(block_alloc(512, 512, false));
	assert_int_equal(block_size(run), 20480);
	assert_true(block_resize(run, 10000)); /* it stays as long */
	assert_false(block_resize(run, 100000));
	block_free(run);
	block_free(slot);
	assert_int_equal(block_size(run), 0);
	assert_int_equal(write(go[1], "", 1), 1);
	pthread_join(holder, NULL);
	assert_int_equal(used_granules(), 0); /* what waited is free */
	for (int i = 0; i < 2; i++) {
		close(held[i]);
		close(go[i]);
	}
}

static char *in_handler[2];

static void handler(int signal)
{
	(void)signal;
	assert_true(lock_held_here());
	assert_null(block_alloc(20000, 4096, false));
	block_free(in_handler[0]);
	block_free(in_handler[1]);
}

static void a_handler_that_interrupts_the_holder_gets_along(void **state)
{
	(void)state;
	in_handler[0] = block_alloc(20000, 4096, false);
	in_handler[1] = block_alloc(512, 512, false);
	signal(SIGUSR1, handler);
	assert_true(blocks_lock_within(1000));
	raise(SIGUSR1);
	blocks_unlock();
	signal(SIGUSR1, SIG_DFL);
	assert_false(lock_held_here());
	assert_int_equal(used_granules(), 0);
}

static size_t resident_bytes(void)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY)
			sum += memfile_resident(&arenas[i].file, 0);
	return sum;
}

/* What was needed once is not held for ever. */
static void freed_memory_goes_back(void **state)
{
	char *p[64];

	(void)state;
	for (int i = 0; i < 64; i++) {
		p[i] = block_alloc(1UL << 20, 4096, false);
		assert_non_null(p[i]);
		memset(p[i], 1, 1UL << 20);
	}
	assert_true(resident_bytes() >= 64UL << 20);
	for (int i = 0; i < 64; i++) /* some arena keeps a block */
		if (i % 16)
			block_free(p[i]);
	assert_true(resident_bytes() <= 16UL << 20);
	for (int i = 0; i < 64; i += 16) {
		assert_int_equal(p[i][4096], 1);
		block_free(p[i]);
	}
	assert_int_equal(used_granules(), 0);
}

/* Thousands of guard pages: each is the kernel's affair, until its block is freed. */
static void guarded_blocks_are_plain_when_freed(void **state)
{
	static char *p[3000];

	(void)state;
	for (int i = 0; i < 3000; i++) {
		p[i] = block_alloc(4 * 4096UL, 4096, false);
		assert_non_null(p[i]);
		assert_int_equal(mapping_protect(p[i], 4096, PROT_NONE, -1), 0);
		p[i][4096] = 1;
	}
	for (int i = 0; i < 3000; i++) {
		assert_false(block_free_cached(p[i]));
		block_free(p[i]);
	}
	p[0] = block_alloc(1UL << 20, 4096, false);
	memset(p[0], 1, 1UL << 20);
	block_free(p[0]);
	assert_int_equal(used_granules(), 0);
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
		cmocka_unit_test(free_runs_join_whatever_made_them),
		cmocka_unit_test(small_blocks_are_slots),
		cmocka_unit_test(wrong_frees_abort),
		cmocka_unit_test(a_block_is_cached_once),
		cmocka_unit_test(a_stopped_holder_stops_nobody),
		cmocka_unit_test(a_handler_that_interrupts_the_holder_gets_along),
		cmocka_unit_test(freed_memory_goes_back),
		cmocka_unit_test(guarded_blocks_are_plain_when_freed),
		cmocka_unit_test(what_does_not_fit_is_left_to_libc),
	};

	pthread_atfork(fork_prepare, fork_parent, fork_child);
	return cmocka_run_group_tests(tests, setup, NULL);
}
