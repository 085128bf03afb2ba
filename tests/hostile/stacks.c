/* SPDX-License-Identifier: MIT */
/*
 * stacks.c - memory that somebody runs on.
 *
 * Fibers, threads and signal handlers with stacks that the program has allocated, as it
 * allocates its buffers, and what they do: they fork.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "hostile.h"

#define STACK (256UL << 10)
#define MAPPED_STACK (2UL << 20) /* large enough to be taken for buffers */
#define FORKS 20

static unsigned int fill_frames(unsigned int depth)
{
	volatile unsigned char frame[400];
	unsigned int sum = 0;

	for (unsigned int i = 0; i < sizeof(frame); i++)
		frame[i] = (unsigned char)depth;
	if (depth)
		sum = fill_frames(depth - 1);
	for (unsigned int i = 0; i < sizeof(frame); i++)
		if (frame[i] != (unsigned char)depth)
			return 1000000;
	return sum + depth;
}

/* On which both sides go on, at once. */
static void fork_here(void)
{
	for (int i = 0; i < FORKS; i++) {
		volatile int here = i;
		pid_t me = gettid();
		pid_t pid = child();

		if (!pid)
			me = getpid();
		for (int k = 0; k < 10; k++)
			CHECK(fill_frames(50) == 50 * 51 / 2);
		CHECK(here == i && gettid() == me);
		here = -1;
		if (!pid)
			_exit(0);
		expect_well(pid);
	}
}

static void *stack(bool is_mapped)
{
	return is_mapped ? mapped(MAPPED_STACK, 0) : aligned(STACK, 0);
}

static void give_back(void *p, bool is_mapped)
{
	if (is_mapped)
		munmap(p, MAPPED_STACK);
	else
		free(p);
}

/* ---- fibers ---- */

static ucontext_t outside, inside;

static void run_fiber(bool is_mapped)
{
	void *p = stack(is_mapped);

	CHECK(getcontext(&inside) == 0);
	inside.uc_stack.ss_sp = p;
	inside.uc_stack.ss_size = is_mapped ? MAPPED_STACK : STACK;
	inside.uc_link = &outside;
	makecontext(&inside, fork_here, 0);
	CHECK(swapcontext(&outside, &inside) == 0);
	give_back(p, is_mapped);
}

static void fork_on_a_fiber(void)
{
	unsigned char *buffer = aligned(100000, 5);

	for (int i = 0; i < 3; i++) {
		run_fiber(false);
		run_fiber(true);
	}
	CHECK(all_are(buffer, 100000, 5));
}

/* ---- threads ---- */

static pthread_mutex_t owned;

static void *fork_as_owner(void *arg)
{
	pthread_mutexattr_t checked;

	pthread_mutexattr_init(&checked);
	pthread_mutexattr_settype(&checked, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&owned, &checked);
	CHECK(pthread_mutex_lock(&owned) == 0);
	fork_here();
	CHECK(pthread_mutex_unlock(&owned) == 0); /* by the thread that it is */
	return arg;
}

static void start_on(pthread_t *thread, void *p, size_t len, void *(*run)(void *),
		     void *arg)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	CHECK(pthread_attr_setstack(&attr, p, len) == 0);
	CHECK(pthread_create(thread, &attr, run, arg) == 0);
	pthread_attr_destroy(&attr);
}

static void fork_on_a_threads_stack(void)
{
	for (int i = 0; i < 3; i++)
		for (int is_mapped = 0; is_mapped < 2; is_mapped++) {
			void *p = stack(is_mapped);
			pthread_t thread;

			start_on(&thread, p, is_mapped ? MAPPED_STACK : STACK, fork_as_owner,
				 NULL);
			CHECK(pthread_join(thread, NULL) == 0);
			give_back(p, is_mapped);
		}
}

#define OTHERS 8
#define NOBODY 65534

static pthread_barrier_t together;

/* libc keeps a list of all threads, and has each do this: so it shows who is in it. */
static void *become_somebody_else(void *arg)
{
	const bool *first = arg;

	pthread_barrier_wait(&together); /* main has forked */
	if (*first)
		CHECK(seteuid(NOBODY) == 0);
	pthread_barrier_wait(&together);
	CHECK(syscall(SYS_geteuid) == NOBODY);
	pthread_barrier_wait(&together);
	if (*first)
		CHECK(seteuid(0) == 0);
	return NULL;
}

/* A child sorts out the threads that it does not have. */
static void fork_beside_threads_stacks(void)
{
	static bool is_first[OTHERS] = { true };
	pthread_t threads[OTHERS];
	void *stacks[OTHERS];

	if (geteuid() != 0)
		skip("only root may become somebody else");
	pthread_barrier_init(&together, NULL, OTHERS + 1);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < OTHERS; i++) {
			stacks[i] = stack(round % 2);
			start_on(&threads[i], stacks[i], STACK, become_somebody_else, &is_first[i]);
		}
		fork_here();
		pthread_barrier_wait(&together);
		pthread_barrier_wait(&together);
		CHECK(syscall(SYS_geteuid) == NOBODY);
		pthread_barrier_wait(&together);
		for (int i = 0; i < OTHERS; i++) {
			CHECK(pthread_join(threads[i], NULL) == 0);
			give_back(stacks[i], round % 2);
		}
		CHECK(syscall(SYS_geteuid) == 0);
	}
}

/* ---- signal handlers ---- */

static void forking_handler(int number)
{
	int saved = errno;

	(void)number;
	fork_here();
	errno = saved;
}

static void fork_on_a_signal_stack(void)
{
	struct sigaction action = { .sa_handler = forking_handler, .sa_flags = SA_ONSTACK };

	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	for (int is_mapped = 0; is_mapped < 2; is_mapped++) {
		stack_t signals = { .ss_sp = stack(is_mapped),
				    .ss_size = is_mapped ? MAPPED_STACK : STACK };

		CHECK(sigaltstack(&signals, NULL) == 0);
		raise(SIGUSR1);
		signals.ss_flags = SS_DISABLE;
		CHECK(sigaltstack(&signals, NULL) == 0);
		give_back(signals.ss_sp, is_mapped);
	}
}

const struct attack stack_attacks[] = {
	{ "fork-on-a-fiber", fork_on_a_fiber, "a stack is memory like any other" },
	{ "fork-on-a-threads-stack", fork_on_a_threads_stack, "and a thread's is, too" },
	{ "fork-beside-threads-stacks", fork_beside_threads_stacks, "of other threads as well" },
	{ "fork-on-a-signal-stack", fork_on_a_signal_stack, "and that of handlers" },
	{ 0 },
};
