/* SPDX-License-Identifier: MIT */
/* identity.c - a block is freed once, and as a whole: anything else ends the program. */
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"

/* The compiler must not see through these. */
static void (*volatile release)(void *) = free;
static void *(*volatile resize)(void *, size_t) = realloc;

static void expect_abort(void (*wrong)(void))
{
	int status;
	pid_t pid = child();

	if (!pid) {
		close(2); /* what is said there is not looked at */
		wrong();
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void free_twice(void)
{
	unsigned char *p = aligned(65536, 1), *between = aligned(65536, 1);

	release(p);
	release(p);
	release(between);
}

static void free_twice_small(void)
{
	unsigned char *p = aligned(4096, 1);

	release(p);
	release(p);
}

static void free_inside(void)
{
	unsigned char *p = aligned(65536, 0);

	release(p + 64);
}

static void free_inside_page(void)
{
	unsigned char *p = aligned(65536, 0);

	release(p + 4096);
}

static void resize_inside(void)
{
	unsigned char *p = aligned(65536, 0);

	release(resize(p + 8192, 100000));
}

static void freed_twice(void)
{
	expect_abort(free_twice);
}

static void freed_twice_small(void)
{
	unsigned char *keep = aligned(4096, 1);

	expect_abort(free_twice_small);
	release(keep);
}

static void freed_inside(void)
{
	expect_abort(free_inside);
	expect_abort(free_inside_page);
	expect_abort(resize_inside);
}

/* All of what malloc_usable_size says is usable, and stays so. */
static void usable_sizes(void)
{
	static const size_t sizes[] = { 512, 1000, 4095, 4096, 4097, 12286, 65536, 100000, 3 << 20 };

	for (int i = 0; i < 9; i++) {
		unsigned char *p = aligned(sizes[i], 1);
		size_t usable = malloc_usable_size(p);

		CHECK(usable >= sizes[i]);
		memset(p, 2, usable);
		p = resize(p, usable + 1);
		CHECK(p && all_are(p, usable, 2));
		release(p);
	}
}

const struct attack identity_attacks[] = {
	{ "freed-twice", freed_twice, "a block that is freed twice ends the program" },
	{ "freed-twice-small", freed_twice_small, "likewise, a small one" },
	{ "freed-inside", freed_inside, "a pointer into a block, too" },
	{ "usable-sizes", usable_sizes, "what is usable is" },
	{ 0 },
};
