/* SPDX-License-Identifier: MIT */
/*
 * learnt.c - a program that libublkzc.so does not know: learnt MEMORY FILE reads FILE by direct
 * I/O, 64 KiB at a time, into memory that it takes as MEMORY says.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIECE 65536
#define READS 512
#define ARENA (32UL << 20)

static char *align(void *p)
{
	return (char *)(((uintptr_t)p + 4095) & ~4095UL);
}

/* As new char[] does, each time anew. */
static void with_malloc(int fd)
{
	for (int i = 0; i < READS; i++) {
		char *p = malloc(PIECE + 4096);

		if (!p || pread(fd, align(p), PIECE, (off_t)(i % 64) * PIECE) != PIECE)
			err(1, "read");
		free(p);
	}
}

/* An arena of its own, of which it takes piece by piece. */
static void with_arena(int fd, char *arena)
{
	for (int i = 0; i < READS; i++)
		if (pread(fd, arena + (size_t)i * PIECE % ARENA, PIECE, (off_t)(i % 64) * PIECE) !=
		    PIECE)
			err(1, "read");
}

static void with_aligned(int fd)
{
	void *p;

	for (int i = 0; i < READS; i++) {
		if (posix_memalign(&p, 4096, PIECE) ||
		    pread(fd, p, PIECE, (off_t)(i % 64) * PIECE) != PIECE)
			err(1, "read");
		free(p);
	}
}

int main(int argc, char **argv)
{
	static char fixed[ARENA + 4096];
	void *arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd;

	if (argc != 3 || arena == MAP_FAILED)
		errx(1, "usage: learnt malloc|arena|fixed|aligned FILE");
	/* What nobody has touched yet is not registered, so its first use would be copied. */
	memset(arena, 1, ARENA);
	fd = open(argv[2], O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", argv[2]);
	if (strcmp(argv[1], "malloc") == 0)
		with_malloc(fd);
	else if (strcmp(argv[1], "fixed") == 0)
		with_arena(fd, align(fixed));
	else if (strcmp(argv[1], "aligned") == 0)
		with_aligned(fd);
	else
		with_arena(fd, arena);
	return 0;
}
