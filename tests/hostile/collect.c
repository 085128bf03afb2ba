/* SPDX-License-Identifier: MIT */
/*
 * collect.c - a program of libgc's: eight threads that build lists, and are stopped.
 *
 * Wherever they are: in mmap and its family, in allocations that may be captured, at the
 * start and the end of further threads, in ld.so.  Built by tests/hostile/clients, where
 * libgc-dev is installed.
 */
#define GC_THREADS
#include <dlfcn.h>
#include <gc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define THREADS 8
#define ROUNDS 250
#define LENGTH 400

struct link {
	struct link *next;
	unsigned int value;
	char *text;
};

static struct link *make_list(unsigned int seed)
{
	struct link *head = NULL;

	for (unsigned int i = 0; i < LENGTH; i++) {
		struct link *l = GC_MALLOC(sizeof(*l));

		l->next = head;
		l->value = seed + i;
		l->text = GC_MALLOC_ATOMIC(16 + i * 7 % 5000);
		snprintf(l->text, 16, "%u", seed + i);
		head = l;
	}
	return head;
}

static void check_list(const struct link *l)
{
	for (; l; l = l->next)
		if (strtoul(l->text, NULL, 10) != l->value)
			abort();
}

/* What is no collector's affair: memory of the program's own. */
static void use_memory(unsigned int round)
{
	size_t len = (size_t)(1 + round % 4) << 20;
	char *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *large = malloc(5000 + round * 977 % 100000);
	void *block = NULL;

	if (map == MAP_FAILED || !large || posix_memalign(&block, 4096, 65536))
		abort();
	memset(block, 1, 65536);
	large[0] = map[0] = map[len - 1] = 1;
	map = mremap(map, len, len + 65536, MREMAP_MAYMOVE);
	if (map == MAP_FAILED || mprotect(map, 4096, PROT_READ) || madvise(map, 4096, MADV_DONTNEED) ||
	    map[0] != 0 || map[len - 1] != 1)
		abort();
	large = realloc(large, 200000);
	if (!large || large[0] != 1)
		abort();
	free(block);
	free(large);
	munmap(map, len + 65536);
}

static void *short_life(void *arg)
{
	check_list(make_list((unsigned int)(size_t)arg));
	use_memory(1);
	return NULL;
}

static void *work(void *arg)
{
	unsigned int seed = (unsigned int)(size_t)arg * 100000;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct link *list = make_list(seed);
		pthread_t other;
		void *library;

		use_memory(round);
		if (round % 10 == 0)
			GC_gcollect();
		if (round % 10 == 5) {
			if (pthread_create(&other, NULL, short_life, arg))
				abort();
			pthread_join(other, NULL);
			/* It stays: libgc would look through its data while it goes. */
			library = dlopen("libm.so.6", RTLD_NOW);
			if (!library || !dlsym(library, "cos"))
				abort();
		}
		check_list(list);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];

	GC_INIT();
	for (size_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)i))
			return 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("%lu collections\n", (unsigned long)GC_get_gc_no());
	return 0;
}
