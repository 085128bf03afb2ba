/* SPDX-License-Identifier: MIT */
/*
 * advice.c - madvise does the same to any private memory.
 *
 * Pieces that are too small for anybody to take an interest in show what the kernel does; large
 * ones and blocks must do likewise.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hostile.h"

#define PIECE 65536UL
#define LAST_ADVICE 120
#define GUARD_INSTALL 102 /* Linux 6.13 */
#define GUARD_REMOVE 103

struct outcome {
	int error;
	char now[2]; /* a byte before the advised part, and in it: 0, itself, or '-': not there */
};

static int readable[2];

/* What is there, without touching it. */
static char look(const unsigned char *p)
{
	unsigned char byte;

	if (write(readable[1], p, 1) != 1)
		return '-';
	CHECK(read(readable[0], &byte, 1) == 1);
	return (char)byte;
}

static struct outcome advise(unsigned char *p, int advice)
{
	struct outcome o = { 0 };

	memset(p, 'x', PIECE);
	if (madvise(p + 16384, 16384, advice))
		o.error = errno;
	/* May be freed when memory is short. */
	if (advice == MADV_FREE)
		memset(p + 16384, 'y', 16384);
	o.now[0] = look(p);
	o.now[1] = look(p + 20480);
	return o;
}

/* What hurts the machine, or depends on how pages lie in it. */
static bool is_harmless(int advice)
{
	return advice != 25 && advice != 100 && advice != 101; /* COLLAPSE, and bad memory */
}

static void compare(const char *what, int advice, struct outcome o, struct outcome expected)
{
	if (o.error == expected.error && memcmp(o.now, expected.now, 2) == 0)
		return;
	fprintf(stderr, "  madvise(%d) of %s: error %d, then %c %c; elsewhere %d, %c %c\n", advice,
		what, o.error, o.now[0], o.now[1], expected.error, expected.now[0],
		expected.now[1]);
	_exit(1);
}

static void advised_alike(void)
{
	CHECK(pipe(readable) == 0);
	for (int advice = 0; advice <= LAST_ADVICE; advice++) {
		unsigned char *plain, *map, *block;
		struct outcome expected;

		if (!is_harmless(advice))
			continue;
		plain = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
		CHECK(plain != MAP_FAILED);
		map = mapped(2UL << 20, 1);
		block = aligned(PIECE, 1);
		expected = advise(plain, advice);
		compare("a mapping", advice, advise(map, advice), expected);
		compare("a block", advice, advise(block, advice), expected);
		/* Else they would be there for whoever has the block next, with any allocator. */
		madvise(block + 16384, 16384, GUARD_REMOVE);
		CHECK(munmap(plain, PIECE) == 0 && munmap(map, 2UL << 20) == 0);
		free(block);
		for (int i = 0; i < 4; i++) {
			block = aligned(PIECE, (unsigned char)i);
			CHECK(all_are(block, PIECE, (unsigned char)i));
			free(block);
		}
	}
}

/* A guard keeps what is behind it, in a child too, and can be taken back. */
static void guards_by_advice(void)
{
	unsigned char *pieces[] = { mapped(2UL << 20, 'x'), aligned(PIECE, 'x') };

	CHECK(pipe(readable) == 0);
	for (int i = 0; i < 2; i++) {
		unsigned char *p = pieces[i];
		pid_t pid;

		if (madvise(p + 4096, 4096, GUARD_INSTALL))
			skip("this kernel has no MADV_GUARD_INSTALL");
		pid = child();
		CHECK(look(p) == 'x' && look(p + 4096) == '-' && look(p + 8192) == 'x');
		if (!pid)
			_exit(0);
		expect_well(pid);
		CHECK(madvise(p + 4096, 4096, GUARD_REMOVE) == 0 && look(p + 4096) == 0);
		memset(p, 'z', PIECE);
		CHECK(all_are(p, PIECE, 'z'));
	}
}

const struct attack advice_attacks[] = {
	{ "advised-alike", advised_alike, "each advice means the same to all memory" },
	{ "guards-by-advice", guards_by_advice, "also that of guards" },
	{ 0 },
};
