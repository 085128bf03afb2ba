/* SPDX-License-Identifier: MIT */
/*
 * locks.c - other people's code that runs while ours may hold something.
 *
 * Handlers of fork, signal handlers, threads that are stopped anywhere, threads
 * that are cancelled.  Nothing here asks for more than the C library gives:
 * malloc is never called by a handler that may have interrupted libc's own.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"

#define MIB (1UL << 20)

static atomic_bool done;

static void *volatile sink;

/* Sizes that are kept for reuse and sizes that are not. */
static void allocate_some(unsigned int seed)
{
	void *p[6];

	for (unsigned int i = 0; i < 6; i++) {
		p[i] = aligned(512 + (seed * 7919 + i * 104729) % 300000, 1);
		sink = p[i];
	}
	for (unsigned int i = 0; i < 6; i++)
		free(p[i]);
}

static void *keep_allocating(void *arg)
{
	for (unsigned int i = 0; !done; i++) {
		void *big;

		allocate_some(i);
		big = malloc(8192 + i % 65536);
		sink = big;
		free(big);
	}
	return arg;
}

static void start_threads(pthread_t *threads, unsigned int nr, void *(*main)(void *))
{
	for (unsigned int i = 0; i < nr; i++)
		CHECK(pthread_create(&threads[i], NULL, main, NULL) == 0);
}

static void join_threads(pthread_t *threads, unsigned int nr)
{
	done = true;
	for (unsigned int i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
}

static void fork_for(double how_long)
{
	double end = seconds() + how_long * patience();
	unsigned int nr = 0;

	while (seconds() < end || nr < 5) {
		pid_t pid = child();

		if (!pid) {
			allocate_some(nr);
			_exit(0);
		}
		expect_well(pid);
		nr++;
	}
}

/* ---- fork against stdio ---- */

static void *use_streams(void *arg)
{
	char line[256];

	while (!done) {
		FILE *f = fopen("/proc/self/stat", "r");

		if (f) {
			char *got = fgets(line, sizeof(line), f);

			sink = got;
			fclose(f);
		}
		fflush(NULL);
	}
	return arg;
}

static void fork_against_stdio(void)
{
	pthread_t threads[6];

	start_threads(threads, 3, use_streams);
	start_threads(threads + 3, 3, keep_allocating);
	fork_for(3);
	join_threads(threads, 6);
}

/* ---- handlers of fork ---- */

static pthread_mutex_t theirs = PTHREAD_MUTEX_INITIALIZER;

static void handler_allocates(void)
{
	allocate_some(1);
}

static void handler_locks(void)
{
	pthread_mutex_lock(&theirs);
	allocate_some(2);
}

static void handler_unlocks(void)
{
	allocate_some(3);
	pthread_mutex_unlock(&theirs);
}

/* A library's lock, under which it allocates. */
static void *allocate_locked(void *arg)
{
	for (unsigned int i = 0; !done; i++) {
		pthread_mutex_lock(&theirs);
		allocate_some(i);
		pthread_mutex_unlock(&theirs);
	}
	return arg;
}

static void first_handlers_allocate(void)
{
	pthread_t threads[2];

	first_prepare = first_parent = first_child = handler_allocates;
	sink = aligned(100000, 1);
	start_threads(threads, 2, keep_allocating);
	fork_for(1);
	join_threads(threads, 2);
}

static void first_handlers_lock(void)
{
	pthread_t threads[3];

	first_prepare = handler_locks;
	first_parent = first_child = handler_unlocks;
	sink = aligned(100000, 1);
	start_threads(threads, 3, allocate_locked);
	fork_for(1);
	join_threads(threads, 3);
}

static void last_handlers_lock(void)
{
	pthread_t threads[3];

	pthread_atfork(handler_locks, handler_unlocks, handler_unlocks);
	pthread_atfork(handler_allocates, handler_allocates, handler_allocates);
	sink = aligned(100000, 1);
	start_threads(threads, 3, allocate_locked);
	fork_for(1);
	join_threads(threads, 3);
}

/* ---- signal handlers ---- */

static volatile unsigned int handled;
static int interval; /* us, from the end of one handler to the next */

static void again(void)
{
	struct itimerval timer = { { 0, 0 }, { 0, interval } };

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void on_signal(int number, void (*handler)(int), int microseconds)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

	CHECK(sigaction(number, &action, NULL) == 0);
	interval = microseconds;
	again();
}

static void forking_handler(int number)
{
	int saved = errno;
	pid_t pid = fork();

	(void)number;
	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	handled++;
	again();
	errno = saved;
}

static void fork_in_signal_handler(void)
{
	double end = seconds() + 3 * patience();

	on_signal(SIGALRM, forking_handler, 2000);
	for (unsigned int i = 0; seconds() < end || handled < 20; i++) {
		allocate_some(i);
		/* Nothing else, so that most signals come in the middle of it. */
		for (unsigned int k = 0; k < 2000; k++) {
			void *p;

			CHECK(posix_memalign(&p, 4096, MIB + (k % 8) * 4096) == 0);
			free(p);
		}
	}
}

static void map_some(unsigned int seed)
{
	size_t len = MIB + (seed % 16) * 65536;
	unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				0);

	CHECK(p != MAP_FAILED);
	p[0] = p[len - 1] = 1;
	CHECK(mprotect(p, 65536, PROT_READ) == 0);
	CHECK(mprotect(p, 65536, PROT_READ | PROT_WRITE) == 0);
	CHECK(madvise(p, 65536, MADV_DONTNEED) == 0);
	CHECK(p[0] == 0 && p[len - 1] == 1);
	p = mremap(p, len, len + 65536, MREMAP_MAYMOVE);
	CHECK(p != MAP_FAILED && p[len - 1] == 1);
	CHECK(munmap(p, len + 65536) == 0);
}

static void mapping_handler(int number)
{
	int saved = errno;

	(void)number;
	map_some(handled);
	handled++;
	again();
	errno = saved;
}

/* mmap and its family are system calls, which handlers may use. */
static void map_in_signal_handler(void)
{
	double end = seconds() + 2 * patience();

	on_signal(SIGALRM, mapping_handler, 500);
	for (unsigned int i = 0; seconds() < end || handled < 20; i++)
		allocate_some(i);
}

static void allocating_handler(int number)
{
	int saved = errno;

	(void)number;
	allocate_some(handled);
	handled++;
	again();
	errno = saved;
}

/* The interrupted code is never in libc's malloc. */
static void allocate_in_signal_handler(void)
{
	double end = seconds() + 2 * patience();

	on_signal(SIGALRM, allocating_handler, 500);
	for (unsigned int i = 0; seconds() < end || handled < 20; i++)
		map_some(i);
}

static void opening_handler(int number)
{
	int saved = errno;
	int fd = open(file(), O_RDONLY | O_DIRECT);

	(void)number;
	if (fd >= 0)
		close(fd);
	handled++;
	again();
	errno = saved;
}

static void open_in_signal_handler(void)
{
	double end = seconds() + 2 * patience();

	on_signal(SIGALRM, opening_handler, 1000);
	for (unsigned int i = 0; seconds() < end || handled < 10; i++) {
		allocate_some(i);
		map_some(i);
	}
}

/* ---- stopping the world, as collectors do ---- */

#define WORLD 4

static sem_t stopped;
static atomic_bool go_on;

static void stop_handler(int number)
{
	int saved = errno;

	(void)number;
	sem_post(&stopped);
	while (!go_on)
		usleep(100);
	sem_post(&stopped);
	errno = saved;
}

static void *live_in_the_world(void *arg)
{
	for (unsigned int i = 0; !done; i++) {
		map_some(i);
		allocate_some(i);
	}
	return arg;
}

/* Holds ld.so's locks now and then, as whoever loads libraries or unwinds a stack does. */
static int look_at_library(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	*(unsigned int *)arg += info->dlpi_phnum;
	return 0;
}

static void *live_by_libraries(void *arg)
{
	while (!done) {
		void *library = dlopen("libm.so.6", RTLD_NOW);
		unsigned int nr = 0;

		CHECK(library && dlsym(library, "cos"));
		for (int i = 0; i < 20; i++)
			dl_iterate_phdr(look_at_library, &nr);
		CHECK(nr > 0);
		dlclose(library);
	}
	return arg;
}

/* What a collector does while nobody else runs: system calls, and no allocation. */
static void collect(unsigned int round)
{
	int fd;

	map_some(round);
	fd = open(file(), O_RDONLY | O_DIRECT);
	if (fd >= 0)
		close(fd);
	map_some(round + 1);
}

static void stop_world_of(void *(*life)(void *))
{
	struct sigaction action = { .sa_handler = stop_handler, .sa_flags = SA_RESTART };
	double end = seconds() + 4 * patience();
	pthread_t threads[WORLD];

	sem_init(&stopped, 0, 0);
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	start_threads(threads, WORLD, life);
	for (unsigned int round = 0; seconds() < end || round < 20; round++) {
		go_on = false;
		for (int i = 0; i < WORLD; i++)
			pthread_kill(threads[i], SIGUSR1);
		for (int i = 0; i < WORLD; i++)
			while (sem_wait(&stopped))
				;
		collect(round);
		go_on = true;
		for (int i = 0; i < WORLD; i++)
			while (sem_wait(&stopped))
				;
		usleep(1000 + round % 7 * 300);
	}
	join_threads(threads, WORLD);
}

static void stop_the_world(void)
{
	stop_world_of(live_in_the_world);
}

static void stop_the_loaders(void)
{
	stop_world_of(live_by_libraries);
}

/* ---- cancellation ---- */

static void *open_and_allocate(void *arg)
{
	for (unsigned int i = 0;; i++) {
		int fd;

		/* What is open or allocated when it is cancelled is lost: not here. */
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		allocate_some(i);
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		fd = open(file(), O_RDONLY | O_DIRECT);
		if (fd >= 0)
			close(fd);
	}
	return arg;
}

static void cancelled_threads(void)
{
	for (unsigned int round = 0; round < 150 * patience(); round++) {
		pthread_t threads[4];

		start_threads(threads, 4, open_and_allocate);
		usleep(round % 10 * 400);
		for (int i = 0; i < 4; i++)
			pthread_cancel(threads[i]);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		allocate_some(round);
	}
}

/* The first allocations of a process, all at once. */
static pthread_barrier_t together;

static void *first_allocation(void *arg)
{
	pthread_barrier_wait(&together);
	allocate_some(1);
	return arg;
}

static void first_allocations_together(void)
{
	for (int round = 0; round < 100 * patience(); round++) {
		pid_t pid = child();

		if (!pid) {
			pthread_t threads[8];

			pthread_barrier_init(&together, NULL, 8);
			start_threads(threads, 8, first_allocation);
			join_threads(threads, 8);
			_exit(0);
		}
		expect_well(pid);
	}
}

const struct attack lock_attacks[] = {
	{ "fork-against-stdio", fork_against_stdio, "fork ends while others use streams" },
	{ "first-handlers-allocate", first_handlers_allocate, "handlers of fork may allocate" },
	{ "first-handlers-lock", first_handlers_lock, "and take locks that others allocate under" },
	{ "last-handlers-lock", last_handlers_lock, "whenever they were registered" },
	{ "fork-in-signal-handler", fork_in_signal_handler, "a signal handler may fork" },
	{ "map-in-signal-handler", map_in_signal_handler, "and map memory" },
	{ "allocate-in-signal-handler", allocate_in_signal_handler, "and allocate, outside malloc" },
	{ "open-in-signal-handler", open_in_signal_handler, "and open files" },
	{ "stop-the-world", stop_the_world, "threads may be stopped anywhere" },
	{ "stop-the-loaders", stop_the_loaders, "with the locks of ld.so, too" },
	{ "cancelled-threads", cancelled_threads, "and cancelled" },
	{ "first-allocations-together", first_allocations_together, "and begin at once" },
	{ 0 },
};
