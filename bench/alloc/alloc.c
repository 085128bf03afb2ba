/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - the cost of allocation functions, for bench/alloc/run.
 *
 * usage: alloc PATTERN SIZE THREADS OPERATIONS
 *
 * Prints nanoseconds per allocation and free: of one thread, those of processor time,
 * because on a machine that others use too the rest is theirs; of several together, by the clock.
 * "slowest" prints the processor time of the one that took longest.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 64 /* blocks a thread holds in the pattern "set" */
#define BATCH 1000
#define LASTING 50
#define THREADS_MAX 64

static size_t size;
static unsigned long operations;
static void *(*allocate)(size_t size);
static void (*pattern)(unsigned int *seed);
static void (*prepare)(void); /* before the time begins */
static pthread_barrier_t start;

static void *by_malloc(size_t bytes)
{
	return malloc(bytes);
}

static void *by_memalign(size_t bytes)
{
	void *p;

	return posix_memalign(&p, 4096, bytes) ? NULL : p;
}

static unsigned int next(unsigned int *seed)
{
	*seed = *seed * 1103515245 + 12345;
	return *seed >> 16;
}

/* Something is written, so that no compiler can do without the block. */
static void *touched(void *p)
{
	if (!p) {
		fputs("alloc: out of memory\n", stderr);
		exit(1);
	}
	*(volatile char *)p = 1;
	return p;
}

static void pairs(unsigned int *seed)
{
	(void)seed;
	for (unsigned long i = 0; i < operations; i++)
		free(touched(allocate(size)));
}

/* A working set, any of which may be replaced next. */
static void working_set(unsigned int *seed)
{
	void *slots[SLOTS] = { 0 };

	for (unsigned long i = 0; i < operations; i++) {
		void **slot = &slots[next(seed) % SLOTS];

		free(*slot);
		*slot = touched(allocate(size));
	}
	for (int i = 0; i < SLOTS; i++)
		free(slots[i]);
}

/* The same of sizes up to the one given. */
static void mixed_sizes(unsigned int *seed)
{
	void *slots[SLOTS] = { 0 };

	for (unsigned long i = 0; i < operations; i++) {
		void **slot = &slots[next(seed) % SLOTS];

		free(*slot);
		*slot = touched(allocate(1 + next(seed) % size));
	}
	for (int i = 0; i < SLOTS; i++)
		free(slots[i]);
}

/* All at once, and all back. */
static void batches(unsigned int *seed)
{
	static _Thread_local void *slots[BATCH];

	(void)seed;
	for (unsigned long i = 0; i < operations; i += BATCH) {
		for (int k = 0; k < BATCH; k++)
			slots[k] = touched(allocate(size));
		for (int k = 0; k < BATCH; k++)
			free(slots[k]);
	}
}

/* As servers do, and Larson's benchmark: a thousand blocks of 4 KiB up to the size given,
 * any of which is replaced next. */
static void larson(unsigned int *seed)
{
	static _Thread_local void *slots[BATCH];

	for (unsigned long i = 0; i < operations; i++) {
		void **slot = &slots[next(seed) % BATCH];

		free(*slot);
		*slot = touched(allocate(4096 + next(seed) % (size - 4096)));
	}
	for (int i = 0; i < BATCH; i++)
		free(slots[i]);
}

/* A buffer that grows up to the size given, an operation a page: only its first byte is
 * written to, or all that is new. */
static void grow(bool doubling, bool fill)
{
	for (unsigned long i = 0; i < operations;) {
		size_t have = 0;
		char *p = NULL;

		for (size_t len = 4096; len <= size; len = doubling ? 2 * len : len + 4096) {
			p = touched(realloc(p, len));
			if (fill)
				memset(p + have, 1, len - have);
			i += (len - have) / 4096;
			have = len;
		}
		free(p);
	}
}

static void growing(unsigned int *seed)
{
	(void)seed;
	grow(false, false);
}

static void growing_filled(unsigned int *seed)
{
	(void)seed;
	grow(false, true);
}

static void doubling(unsigned int *seed)
{
	(void)seed;
	grow(true, true);
}

static void *map(void)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void mappings(unsigned int *seed)
{
	(void)seed;
	for (unsigned long i = 0; i < operations; i++)
		munmap(touched(map()), size);
}

/* Each as long as the time in which a server finds it. */
static void lasting_mappings(unsigned int *seed)
{
	void *maps[LASTING];

	(void)seed;
	for (unsigned long i = 0; i < operations; i += LASTING) {
		for (int k = 0; k < LASTING; k++)
			maps[k] = touched(map());
		usleep(20000);
		for (int k = 0; k < LASTING; k++)
			munmap(maps[k], size);
	}
}

static void *live;

static void fill(void)
{
	live = by_memalign(size);
	memset(touched(live), 1, size);
}

/* With SIZE bytes that were written to. */
static void forks(unsigned int *seed)
{
	(void)seed;
	for (unsigned long i = 0; i < operations; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
}

static double clock_of(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* What the one call that took longest took, of those of a program that takes and gives
 * back buffers of all sizes up to the one given. */
static double slowest;

static void all_sizes(unsigned int *seed)
{
	void *slots[SLOTS] = { 0 };

	for (unsigned long i = 0; i < operations; i++) {
		void **slot = &slots[next(seed) % SLOTS];
		size_t len = (size_t)4096 << next(seed) % (unsigned int)__builtin_ctzl(size / 4096);
		double times[3] = { clock_of(CLOCK_THREAD_CPUTIME_ID) };

		free(*slot);
		times[1] = clock_of(CLOCK_THREAD_CPUTIME_ID);
		*slot = allocate(len);
		times[2] = clock_of(CLOCK_THREAD_CPUTIME_ID);
		memset(touched(*slot), 1, len);
		for (int k = 0; k < 2; k++)
			if (times[k + 1] - times[k] > slowest)
				slowest = times[k + 1] - times[k];
	}
}

static void *thread(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg + 1;

	pthread_barrier_wait(&start);
	pattern(&seed);
	return NULL;
}

/* Of this process and its children. */
static double processor_time(void)
{
	struct rusage children;

	getrusage(RUSAGE_CHILDREN, &children);
	return clock_of(CLOCK_PROCESS_CPUTIME_ID) +
	       (double)(children.ru_utime.tv_sec + children.ru_stime.tv_sec) * 1e9 +
	       (double)(children.ru_utime.tv_usec + children.ru_stime.tv_usec) * 1e3;
}

static double by_clock(void)
{
	return clock_of(CLOCK_MONOTONIC);
}

static int run(unsigned int threads)
{
	double (*now)(void) = threads == 1 ? processor_time : by_clock;
	pthread_t ids[THREADS_MAX];
	double began;

	if (prepare)
		prepare();
	pthread_barrier_init(&start, NULL, threads + 1);
	for (unsigned int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, thread, (void *)(uintptr_t)i))
			return 1;
	began = now(); /* before: the threads may be done when this one runs again */
	pthread_barrier_wait(&start);
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	printf("%.2f\n", slowest > 0 ? slowest : (now() - began) / ((double)operations * threads));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void *(*allocate)(size_t);
		void (*pattern)(unsigned int *);
		void (*prepare)(void);
	} patterns[] = {
		{ "malloc-pairs", by_malloc, pairs, NULL },
		{ "malloc-set", by_malloc, working_set, NULL },
		{ "malloc-mixed", by_malloc, mixed_sizes, NULL },
		{ "malloc-batch", by_malloc, batches, NULL },
		{ "larson", by_malloc, larson, NULL },
		{ "realloc-growing", by_malloc, growing, NULL },
		{ "realloc-filled", by_malloc, growing_filled, NULL },
		{ "realloc-doubling", by_malloc, doubling, NULL },
		{ "mmap-pairs", by_malloc, mappings, NULL },
		{ "mmap-lasting", by_malloc, lasting_mappings, NULL },
		{ "fork", by_malloc, forks, fill },
		{ "slowest", by_malloc, all_sizes, NULL },
		{ "memalign-slowest", by_memalign, all_sizes, NULL },
		{ "memalign-pairs", by_memalign, pairs, NULL },
		{ "memalign-set", by_memalign, working_set, NULL },
	};
	unsigned int threads = argc == 5 ? (unsigned int)atoi(argv[3]) : 0;

	for (size_t i = 0; argc == 5 && i < sizeof(patterns) / sizeof(patterns[0]); i++)
		if (strcmp(argv[1], patterns[i].name) == 0) {
			allocate = patterns[i].allocate;
			pattern = patterns[i].pattern;
			prepare = patterns[i].prepare;
		}
	size = argc == 5 ? strtoul(argv[2], NULL, 10) : 0;
	operations = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
	if (!pattern || !size || !operations || !threads || threads > THREADS_MAX) {
		fputs("usage: alloc PATTERN SIZE THREADS OPERATIONS\n", stderr);
		return 2;
	}
	return run(threads);
}
