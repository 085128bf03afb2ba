/* SPDX-License-Identifier: MIT */
/* Who is waited for by an allocation, and who is not. */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "preload/lock.h"
#include "preload/sys.h"
#include "tests/unit/cmocka_all.h"

#define HELD_MS 150 /* longer than anybody is waited for unseen */

static sem_t held;
static int stop_pipe[2];

/* Wants a processor all the time. */
static void *hold_and_run(void *arg)
{
	long long until;

	assert_true(lock_take_within(1000));
	sem_post(&held);
	until = sys_now_ms() + HELD_MS;
	while (sys_now_ms() < until)
		;
	lock_drop();
	return arg;
}

/* As one that a signal handler stops. */
static void *hold_and_sleep(void *arg)
{
	char byte;

	assert_true(lock_take_within(1000));
	sem_post(&held);
	assert_int_equal(read(stop_pipe[0], &byte, 1), 1);
	lock_drop();
	return arg;
}

static bool take_from(void *(*holder)(void *), bool stopped)
{
	pthread_t thread;
	bool taken;

	assert_int_equal(pthread_create(&thread, NULL, holder, NULL), 0);
	sem_wait(&held);
	taken = lock_take_patiently();
	if (taken)
		lock_drop();
	if (stopped)
		assert_int_equal(write(stop_pipe[1], "", 1), 1);
	pthread_join(thread, NULL);
	return taken;
}

/* Unless the machine gives it no processor for a second: so one of ten. */
static void one_that_runs_is_waited_for(void **unused)
{
	bool taken = false;

	(void)unused;
	for (int i = 0; i < 10 && !taken; i++)
		taken = take_from(hold_and_run, false);
	assert_true(taken);
}

static void one_that_is_stopped_is_not(void **unused)
{
	(void)unused;
	assert_int_equal(pipe(stop_pipe), 0);
	assert_false(take_from(hold_and_sleep, true));
	/* And then it is as before. */
	assert_true(lock_take_patiently());
	lock_drop();
}

static void a_fork_is_not(void **unused)
{
	(void)unused;
	assert_true(lock_freeze());
	assert_false(lock_take_patiently());
	assert_true(lock_frozen());
	lock_thaw();
	assert_true(lock_take_patiently());
	lock_drop();
}

static void the_caller_is_not(void **unused)
{
	(void)unused;
	assert_true(lock_take());
	assert_false(lock_take_patiently());
	assert_true(lock_held_here());
	lock_drop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_runs_is_waited_for),
		cmocka_unit_test(one_that_is_stopped_is_not),
		cmocka_unit_test(a_fork_is_not),
		cmocka_unit_test(the_caller_is_not),
	};

	sem_init(&held, 0, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
