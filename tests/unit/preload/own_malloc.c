/* SPDX-License-Identifier: MIT */
/* A program that brings its own allocator, as with a static jemalloc. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Alignas(16) char heap[1 << 20];
static size_t used;

void *malloc(size_t size)
{
	void *p = heap + used;

	used += (size + 15) & ~(size_t)15;
	return used <= sizeof(heap) ? p : NULL;
}

void free(void *p)
{
	(void)p;
}

void *calloc(size_t nr, size_t size)
{
	return malloc(nr * size); /* never given out twice, so zero */
}

void *realloc(void *p, size_t size)
{
	void *to = malloc(size);

	/* What lies behind the old block in the heap is readable too. */
	return to && p ? memmove(to, p, size) : to;
}

int main(void)
{
	char *p = malloc(100000);

	memset(p, 7, 100000);
	free(p);
	puts("well");
	return p == NULL;
}
