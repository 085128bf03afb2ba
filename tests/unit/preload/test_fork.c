/* SPDX-License-Identifier: MIT */
/*
 * Memory from the shim is private over fork: what either side writes after it, the
 * other never sees.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/blocks.h"
#include "preload/config.h"
#include "preload/fork.h"
#include "preload/session.h"
#include "preload/shim.h"
#include "preload/stats.h"
#include "tests/unit/cmocka_all.h"

#define NR 40
#define SIZE 10000

static unsigned char *block[NR];

static void fill_all(unsigned char value)
{
	for (int i = 0; i < NR; i++)
		memset(block[i], value, SIZE);
}

static bool all_are(unsigned char value)
{
	for (int i = 0; i < NR; i++)
		for (int k = 0; k < SIZE; k++)
			if (block[i][k] != value)
				return false;
	return true;
}

/* What exit status means, 0 being well. */
#define CHECK(what, number)                                                                        \
	do {                                                                                       \
		if (!(what))                                                                       \
			_exit(number);                                                             \
	} while (0)

static void expect_exit_0(pid_t pid)
{
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int setup_mode(enum fork_mode mode)
{
	char *none = NULL;

	config_read(&none, &config);
	config.fork = mode;
	for (int i = 0; i < NR; i++)
		block[i] = block_alloc(SIZE, 4096, false);
	return block[NR - 1] == NULL;
}

static int setup_copy(void **state)
{
	(void)state;
	return setup_mode(FORK_COPY);
}

static int setup_private(void **state)
{
	(void)state;
	return setup_mode(FORK_PRIVATE);
}

static int teardown(void **state)
{
	bool valid;

	(void)state;
	for (int i = 0; i < NR; i++)
		block_free(block[i]);
	assert_true(blocks_lock_within(1000));
	valid = blocks_valid();
	blocks_unlock();
	assert_true(valid);
	return 0;
}

static void wait_byte(int fd)
{
	char byte;

	assert_int_equal(read(fd, &byte, 1), 1);
}

/* What was freed before a fork is not handed out again from where no server sees it. */
static void freed_blocks_do_not_outlive_a_fork(void **state)
{
	char *p = block_alloc(SIZE, 4096, false);
	pid_t pid;

	(void)state;
	assert_true(block_free_cached(p));
	pid = fork();
	if (pid == 0) {
		CHECK(!block_alloc_cached(SIZE, 4096), 1);
		p = block_alloc(SIZE, 4096, false);
		CHECK(p && arena_of(p)->state == ARENA_SHARED, 2);
		_exit(0);
	}
	expect_exit_0(pid);
	p = block_alloc_cached(SIZE, 4096);
	if (!p)
		p = block_alloc(SIZE, 4096, false);
	assert_int_equal(arena_of(p)->state, ARENA_SHARED);
	block_free(p);
}

static void both_sides_keep_their_own(void **state)
{
	int go[2], done[2];
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(done), 0);
	fill_all(1);
	pid = fork();
	if (pid == 0) {
		CHECK(all_are(1), 1);
		wait_byte(go[0]); /* the parent has written 2 */
		CHECK(all_are(1), 2);
		fill_all(3);
		CHECK(write(done[1], "", 1) == 1, 3);
		wait_byte(go[0]); /* the parent has looked */
		CHECK(all_are(3), 4);
		_exit(0);
	}
	fill_all(2);
	assert_int_equal(write(go[1], "", 1), 1);
	wait_byte(done[0]);
	assert_true(all_are(2));
	fill_all(4);
	assert_int_equal(write(go[1], "", 1), 1);
	expect_exit_0(pid);
	assert_true(all_are(4));
	for (int i = 0; i < 2; i++) {
		close(go[i]);
		close(done[i]);
	}
}

static void both_sides_go_on_allocating(void **state)
{
	unsigned char *p;
	pid_t pid;

	(void)state;
	fill_all(1);
	pid = fork();
	p = block_alloc(SIZE, 4096, true);
	if (pid == 0) {
		CHECK(p && arena_owns(p), 1);
		memset(p, 9, SIZE);
		for (int i = 0; i < NR; i += 2)
			block_free(block[i]);
		for (int i = 1; i < NR; i += 2)
			CHECK(block[i][0] == 1, 2);
		CHECK(p[0] == 9, 3);
		CHECK(blocks_lock_within(1000), 5);
		CHECK(blocks_valid(), 4);
		_exit(0);
	}
	assert_non_null(p);
	memset(p, 8, SIZE);
	expect_exit_0(pid);
	assert_int_equal(p[SIZE - 1], 8);
	assert_true(all_are(1));
	block_free(p);
}

static void nested_forks(void **state)
{
	pid_t pid;

	(void)state;
	fill_all(1);
	pid = fork();
	if (pid == 0) {
		pid_t grandchild;
		int status;

		fill_all(2);
		grandchild = fork();
		if (grandchild == 0) {
			CHECK(all_are(2), 1);
			fill_all(3);
			CHECK(all_are(3), 2);
			_exit(0);
		}
		CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0, 3);
		CHECK(all_are(2), 4);
		_exit(0);
	}
	expect_exit_0(pid);
	assert_true(all_are(1));
}

static void many_forks_in_a_row(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		pid_t pid;

		fill_all((unsigned char)round);
		pid = fork();
		if (pid == 0)
			_exit(all_are((unsigned char)round) ? 0 : 1);
		expect_exit_0(pid);
	}
	/* Retired arenas are few: blocks that live on are in one. */
	assert_true(arena_slots < 40);
}

static atomic_bool stop;

static void *churn(void *arg)
{
	unsigned int seed = 7;

	(void)arg;
	while (!stop) {
		char *p = block_alloc((size_t)rand_r(&seed) % 50000 + 1, 4096, false);

		if (!p)
			continue; /* during a fork: libc would have it */
		p[0] = 1;
		block_free(p);
	}
	return NULL;
}

struct forker {
	int errors;
};

static void *fork_from_thread(void *arg)
{
	struct forker *f = arg;

	for (int i = 0; i < 20; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			char *p = block_alloc(5000, 4096, true);

			_exit(p && all_are(5) ? 0 : 1);
		}
		if (waitpid(pid, &status, 0) != pid || status)
			f->errors++;
	}
	return NULL;
}

static void forks_from_a_thread_while_others_allocate(void **state)
{
	struct forker f = { 0 };
	pthread_t churner, forker;

	(void)state;
	fill_all(5);
	stop = false;
	pthread_create(&churner, NULL, churn, NULL);
	pthread_create(&forker, NULL, fork_from_thread, &f);
	pthread_join(forker, NULL);
	stop = true;
	pthread_join(churner, NULL);
	assert_int_equal(f.errors, 0);
}

/* A process made without our handlers must not touch the parent's memory. */
static void a_child_we_did_not_see(void **state)
{
	pid_t pid;

	(void)state;
	fill_all(1);
	pid = _Fork();
	if (pid == 0) {
		CHECK(!shim_is_owner(), 1);
		CHECK(block_alloc(64UL << 20, 4096, false) == NULL, 2);
		_exit(0);
	}
	expect_exit_0(pid);
	assert_true(shim_is_owner());
}

static void the_parent_does_not_hang_on_a_child_that_dies(void **state)
{
	int fds[2];
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	/* prepare and parent by hand, the child is one that says nothing */
	fork_prepare();
	pid = _Fork();
	if (pid == 0)
		_exit(0);
	close(fds[1]);
	fork_parent();
	expect_exit_0(pid);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}

#define COPY(f)                                                                                    \
	{                                                                                          \
#f " (copy)", f, setup_copy, teardown, NULL                                        \
	}
#define PRIVATE(f)                                                                                 \
	{                                                                                          \
#f " (private)", f, setup_private, teardown, NULL                                  \
	}
#define BOTH(f) COPY(f), PRIVATE(f)

/* It comes first, in a process that has no arena yet, and allocates in its parent's memory. */
static void a_child_of_vfork_is_not_the_owner(void **state)
{
	char *none = NULL;
	int status;
	pid_t pid;
	void *p;

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* it makes a fork of it */
#endif
	config_read(&none, &config);
	pid = vfork();
	if (!pid)
		_exit(block_alloc(SIZE, 4096, false) ? 1 : 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	p = block_alloc(SIZE, 4096, false);
	assert_non_null(p);
	assert_int_equal(shim.owner, getpid());
	block_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_child_of_vfork_is_not_the_owner), /* before there is an arena */
		BOTH(freed_blocks_do_not_outlive_a_fork),
		BOTH(both_sides_keep_their_own),
		BOTH(both_sides_go_on_allocating),
		BOTH(nested_forks),
		BOTH(many_forks_in_a_row),
		BOTH(forks_from_a_thread_while_others_allocate),
		BOTH(a_child_we_did_not_see),
		COPY(the_parent_does_not_hang_on_a_child_that_dies),
	};

	pthread_atfork(fork_prepare, fork_parent, fork_child);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
