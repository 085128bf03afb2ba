/* SPDX-License-Identifier: MIT */
/*
 * collect.c - a program of libgc's: eight threads that build lists, and are stopped.
 *
 * Built by tests/hostile/clients, where libgc-dev is installed.
 */
#define GC_THREADS
#include <gc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define THREADS 8
#define ROUNDS 60
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

static void *work(void *arg)
{
	unsigned int seed = (unsigned int)(size_t)arg * 100000;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		struct link *list = make_list(seed);
		size_t len = (1 + round % 4) << 20;
		char *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 -1, 0);
		void *block = NULL;

		if (map == MAP_FAILED || posix_memalign(&block, 4096, 65536))
			abort();
		memset(block, 1, 65536);
		map[len - 1] = 1;
		if (round % 10 == 0)
			GC_gcollect();
		check_list(list);
		free(block);
		munmap(map, len);
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
