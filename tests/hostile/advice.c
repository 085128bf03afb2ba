/* SPDX-License-Identifier: MIT */
/*
 * advice.c - madvise does the same to any private memory, and wrong calls are as wrong.
 *
 * Pieces that are too small for anybody to take an interest in, or that were mapped by a system
 * call of the program's own, show what the kernel does; large ones and blocks must do likewise.
 */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
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
	unsigned char *plain = mapped(PIECE, 'x');

	CHECK(pipe(readable) == 0);
	if (madvise(plain, 4096, GUARD_INSTALL))
		skip("this kernel has no MADV_GUARD_INSTALL");
	for (int i = 0; i < 2; i++) {
		unsigned char *p = pieces[i];
		pid_t pid;

		CHECK(madvise(p + 4096, 4096, GUARD_INSTALL) == 0);
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

/* ---- wrong calls ---- */

#define ODD_LEN (4UL << 20)
#define ODD_MAX 64

static int errors[ODD_MAX];
static unsigned int nr_errors;

static void note(long ret)
{
	CHECK(nr_errors < ODD_MAX);
	errors[nr_errors++] = ret == -1 ? errno : 0;
}

static void call_wrongly(char *p)
{
	const size_t lens[] = { 0, 1, SIZE_MAX, SIZE_MAX - 4095, 1UL << 48 };

	for (int i = 0; i < 5; i++) {
		note((long)mremap(p, lens[i], ODD_LEN, i == 1 ? 0 : MREMAP_MAYMOVE));
		note((long)mremap(p + 1, ODD_LEN, lens[i], MREMAP_MAYMOVE));
		note(munmap(p + 1, lens[i]));
		note(mprotect(p + 1, lens[i], PROT_READ));
		note(madvise(p + 1, lens[i], MADV_DONTNEED));
		note(madvise(p, lens[i], 999));
		if (!i || i == 1)
			continue;
		note((long)mremap(p, ODD_LEN, lens[i], MREMAP_MAYMOVE));
		note(munmap(p, lens[i]));
		note(mlock(p, lens[i]));
		note(mlock2(p, lens[i], 0));
	}
	note((long)mremap(p, ODD_LEN, ODD_LEN, 99));
	note((long)mremap(p, ODD_LEN, ODD_LEN, MREMAP_FIXED, p + ODD_LEN));
	note((long)mremap(p, ODD_LEN, ODD_LEN, MREMAP_FIXED | MREMAP_MAYMOVE, p + 4096));
	note(mlock2(p, 4096, 77));
	note(mprotect(p, 4096, 0x8000));
	CHECK(all_are((unsigned char *)p, ODD_LEN, 'w'));
}

static void wrong_calls(void)
{
	char *plain = (char *)syscall(SYS_mmap, NULL, ODD_LEN, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int expected[ODD_MAX];
	unsigned int nr;

	CHECK(plain != MAP_FAILED);
	memset(plain, 'w', ODD_LEN);
	call_wrongly(plain);
	memcpy(expected, errors, sizeof(expected));
	nr = nr_errors;
	nr_errors = 0;
	call_wrongly((char *)mapped(ODD_LEN, 'w'));
	for (unsigned int i = 0; i < nr; i++) {
		if (errors[i] != expected[i])
			fprintf(stderr, "  call %u: error %d, elsewhere %d\n", i, errors[i],
				expected[i]);
		CHECK(errors[i] == expected[i]);
	}
}

static void wrong_mappings(void)
{
	static const struct {
		uintptr_t at;
		int prot, flags, offset;
	} list[] = { { 0, 0, 0, 1 },
		     { 0, 0, 0, 4096 },
		     { 1, 0, MAP_FIXED, 0 },
		     { 1UL << 47, 0, MAP_FIXED, 0 },
		     { 1UL << 62, 0, MAP_FIXED_NOREPLACE, 0 },
		     { 0, 0x8000, 0, 0 },
		     { 0, PROT_GROWSDOWN, 0, 0 },
		     { 0, 0, 1 << 26, 0 },
		     { 0, 0, MAP_HUGETLB | 40 << 26, 0 },
		     { 0, 0, MAP_SYNC, 0 } };

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		int prot = PROT_READ | PROT_WRITE | list[i].prot;
		int flags = MAP_PRIVATE | MAP_ANONYMOUS | list[i].flags;
		int expected = 0, error = 0;

		if (syscall(SYS_mmap, list[i].at, ODD_LEN, prot, flags, -1, list[i].offset) == -1)
			expected = errno;
		if (mmap((void *)list[i].at, ODD_LEN, prot, flags, -1, list[i].offset) ==
		    MAP_FAILED)
			error = errno;
		if (error != expected)
			fprintf(stderr, "  mapping %zu: error %d, elsewhere %d\n", i, error,
				expected);
		CHECK(error == expected);
	}
}

const struct attack advice_attacks[] = {
	{ "wrong-calls", wrong_calls, "what is an error is one, and changes nothing" },
	{ "wrong-mappings", wrong_mappings, "likewise, of mmap" },
	{ "advised-alike", advised_alike, "each advice means the same to all memory" },
	{ "guards-by-advice", guards_by_advice, "also that of guards" },
	{ 0 },
};
