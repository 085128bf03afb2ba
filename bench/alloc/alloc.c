/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - the cost of allocation functions, for bench/alloc/run.
 *
 * usage: alloc PATTERN SIZE THREADS OPERATIONS
 *
 * Prints nanoseconds per allocation and free, of all threads together.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 64 /* blocks a thread holds in the pattern "set" */
#define BATCH 1000
#define THREADS_MAX 64

static size_t size;
static unsigned long operations;
static void *(*allocate)(size_t size);
static void (*pattern)(unsigned int *seed);
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

/* A buffer that grows by a page at a time, up to the size given. */
static void growing(unsigned int *seed)
{
	(void)seed;
	for (unsigned long i = 0; i < operations;) {
		void *p = NULL;

		for (size_t len = 4096; len <= size; len += 4096, i++)
			p = touched(realloc(p, len));
		free(p);
	}
}

static void mappings(unsigned int *seed)
{
	(void)seed;
	for (unsigned long i = 0; i < operations; i++) {
		void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			       0);

		munmap(touched(p == MAP_FAILED ? NULL : p), size);
	}
}

/* With SIZE bytes that were written to. */
static void forks(unsigned int *seed)
{
	void *p = by_memalign(size);

	(void)seed;
	memset(touched(p), 1, size);
	for (unsigned long i = 0; i < operations; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
	free(p);
}

static void *thread(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg + 1;

	pthread_barrier_wait(&start);
	pattern(&seed);
	return NULL;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int run(unsigned int threads)
{
	pthread_t ids[THREADS_MAX];
	double began;

	pthread_barrier_init(&start, NULL, threads + 1);
	for (unsigned int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, thread, (void *)(uintptr_t)i))
			return 1;
	began = now(); /* before: the threads may be done when this one runs again */
	pthread_barrier_wait(&start);
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	printf("%.2f\n", (now() - began) / ((double)operations * threads));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void *(*allocate)(size_t);
		void (*pattern)(unsigned int *);
	} patterns[] = {
		{ "malloc-pairs", by_malloc, pairs },
		{ "malloc-set", by_malloc, working_set },
		{ "malloc-mixed", by_malloc, mixed_sizes },
		{ "malloc-batch", by_malloc, batches },
		{ "larson", by_malloc, larson },
		{ "realloc-growing", by_malloc, growing },
		{ "mmap-pairs", by_malloc, mappings },
		{ "fork", by_malloc, forks },
		{ "memalign-pairs", by_memalign, pairs },
		{ "memalign-set", by_memalign, working_set },
	};
	unsigned int threads = argc == 5 ? (unsigned int)atoi(argv[3]) : 0;

	for (size_t i = 0; argc == 5 && i < sizeof(patterns) / sizeof(patterns[0]); i++)
		if (strcmp(argv[1], patterns[i].name) == 0) {
			allocate = patterns[i].allocate;
			pattern = patterns[i].pattern;
		}
	size = argc == 5 ? strtoul(argv[2], NULL, 10) : 0;
	operations = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
	if (!pattern || !size || !operations || !threads || threads > THREADS_MAX) {
		fputs("usage: alloc PATTERN SIZE THREADS OPERATIONS\n", stderr);
		return 2;
	}
	return run(threads);
}
