/* SPDX-License-Identifier: MIT */
/*
 * victim.c - a program that is run with and without the shim; test_preloaded compares.
 * Prints what the allocation functions do in corner cases, in words that are the same
 * wherever the memory comes from.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The compiler must not see through these. */
static void *(*volatile xmalloc)(size_t) = malloc;
static void *(*volatile xcalloc)(size_t, size_t) = calloc;
static void *(*volatile xrealloc)(void *, size_t) = realloc;
static void *(*volatile xaligned_alloc)(size_t, size_t) = aligned_alloc;
static void *(*volatile xmemalign)(size_t, size_t) = memalign;

static void show_memalign(size_t align, size_t size)
{
	void *p = &p;
	int ret;

	errno = 77;
	ret = posix_memalign(&p, align, size);
	printf("posix_memalign(%zu, %zu): %d, %s, aligned %d, errno %d\n", align, size, ret,
	       p == &p ? "untouched"
	       : p     ? "memory"
		       : "NULL",
	       p != &p && (uintptr_t)p % align == 0, errno);
	if (p != &p)
		free(p);
}

static void show(const char *what, void *p, size_t align)
{
	printf("%s: %s, aligned %d, errno %d\n", what, p ? "memory" : "NULL",
	       (uintptr_t)p % align == 0, errno);
	errno = 77;
	free(p);
	printf("errno after free %d\n", errno);
}

static void corner_cases(void)
{
	static const size_t aligns[] = { 8, 24, 512, 4096, 65536, 2 << 20, 4 << 20 };
	static const size_t sizes[] = { 0, 1, 511, 512, 5000, 1 << 20, (size_t)-5000 };

	for (unsigned int i = 0; i < 7; i++)
		for (unsigned int k = 0; k < 7; k++)
			show_memalign(aligns[i], sizes[k]);
	errno = 77;
	show("aligned_alloc(4096, 5000)", xaligned_alloc(4096, 5000), 4096);
	show("aligned_alloc(4096, 0)", xaligned_alloc(4096, 0), 4096);
	show("memalign(600, 5000)", xmemalign(600, 5000), 1024);
	show("memalign(4096, huge)", xmemalign(4096, SIZE_MAX - 5000), 1);
	show("calloc(1 << 20, 1)", xcalloc(1 << 20, 1), 16);
	show("calloc(overflow)", xcalloc(SIZE_MAX / 2, 4), 1);
	show("malloc(0)", xmalloc(0), 16);
	show("valloc(100)", valloc(100), 4096);
	show("pvalloc(100)", pvalloc(100), 4096);
}

/* Contents survive growing and shrinking, in every direction between allocators. */
static void reallocs(void)
{
	static const size_t sizes[] = { 10, 600, 5000, 70000, 3 << 20, 100, 4096, 1 };
	unsigned char *p = xaligned_alloc(4096, 4096);
	size_t have = 4096;

	memset(p, 5, have);
	for (int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < 8; i++) {
			size_t keep = have < sizes[i] ? have : sizes[i];

			p = xrealloc(p, sizes[i]);
			for (size_t k = 0; k < keep; k++)
				if (p[k] != 5)
					abort();
			if (malloc_usable_size(p) < sizes[i])
				abort();
			memset(p, 5, malloc_usable_size(p));
			have = sizes[i];
		}
	}
	printf("realloc to 0: %s\n", xrealloc(p, 0) ? "memory" : "NULL");
	p = xcalloc(300, 300);
	for (int i = 0; i < 90000; i++)
		if (p[i])
			abort();
	free(p);
}

static void forks(void)
{
	char *p = xaligned_alloc(4096, 1 << 20);
	int status = -1;
	pid_t pid;

	strcpy(p, "before");
	pid = fork();
	if (pid == 0) {
		usleep(50000);
		_exit(strcmp(p, "before") == 0 ? 7 : 8);
	}
	strcpy(p, "parent");
	waitpid(pid, &status, 0);
	printf("the child saw %s\n", WEXITSTATUS(status) == 7 ? "its own" : "the parent's");
	free(p);
	printf("system: %d\n", system("exit 3"));
}

static void opens(void)
{
	int fd;

	errno = 77;
	fd = open("/nonexistent/file", O_RDWR | O_DIRECT);
	printf("open: %d, errno %d\n", fd, errno);
	fd = open("/tmp", O_TMPFILE | O_RDWR, 0640);
	printf("O_TMPFILE: %s\n",
	       fd >= 0 || errno == EOPNOTSUPP || errno == EISDIR ? "as it should" : "wrong");
	if (fd >= 0) {
		printf("F_SETFL: %d\n", fcntl(fd, F_SETFL, O_APPEND));
		printf("F_GETFL: %d\n", (fcntl(fd, F_GETFL) & O_APPEND) != 0);
		close(fd);
	}
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "nothing") == 0)
		return 0;
	corner_cases();
	reallocs();
	forks();
	opens();
	return 0;
}
