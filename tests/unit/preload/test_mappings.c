/* SPDX-License-Identifier: MIT */
/*
 * Captured mappings against the kernel's own private anonymous memory: the same
 * calls on both, and both must look the same afterwards, here and in children.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/blocks.h"
#include "preload/config.h"
#include "preload/fork.h"
#include "preload/mappings.h"
#include "preload/regions.h"
#include "preload/shim.h"
#include "preload/stats.h"
#include "preload/sys.h"
#include "tests/unit/cmocka_all.h"

#define PAGE 4096UL
#define PAGES 96UL
#define AREA (PAGES * PAGE)
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define STEPS 400

static char *ours;   /* captured where it is mapped */
static char *theirs; /* never captured */

static unsigned int seed;

static unsigned int rnd(unsigned int below)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % below;
}

static char *reserve(void)
{
	char *p = mmap(NULL, AREA + 2 * PAGE, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p + PAGE;
}

static int setup(enum fork_mode mode)
{
	char *none = NULL;

	config_read(&none, &config);
	config.fork = mode;
	shim.mmap_min = PAGE;
	shim.on = true;
	seed = 20;
	ours = reserve();
	theirs = reserve();
	return 0;
}

static int setup_copy(void **state)
{
	(void)state;
	return setup(FORK_COPY);
}

static int setup_private(void **state)
{
	(void)state;
	return setup(FORK_PRIVATE);
}

static bool regions_left(void)
{
	assert_true(blocks_lock_within(1000));
	regions_look(); /* which else waits until it is worth it */
	blocks_unlock();
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state != ARENA_EMPTY && !arenas[i].granules)
			return true;
	return false;
}

static int teardown(void **state)
{
	(void)state;
	if (regions_touch(ours, AREA))
		assert_int_equal(mapping_unmap(ours, AREA), 0);
	assert_false(regions_left());
	munmap(ours - PAGE, AREA + 2 * PAGE);
	munmap(theirs - PAGE, AREA + 2 * PAGE);
	return 0;
}

/* ---- the two sides of each call ---- */

static int error_of(long ret)
{
	return ret == -1 ? errno : 0;
}

static void both_commit(size_t at, size_t len, int flags)
{
	char *p = mapping_new(ours + at, len, RW, ANON | MAP_FIXED | flags);

	assert_ptr_equal(p, ours + at);
	assert_ptr_equal(mmap(theirs + at, len, RW, ANON | MAP_FIXED | flags, -1, 0), theirs + at);
}

static void both_decommit(size_t at, size_t len)
{
	int flags = ANON | MAP_FIXED | MAP_NORESERVE;

	assert_int_equal(mapping_replace(ours + at, len, PROT_NONE, flags, -1, 0),
			 (long)(ours + at));
	assert_ptr_equal(mmap(theirs + at, len, PROT_NONE, flags, -1, 0), theirs + at);
}

static void both_protect(size_t at, size_t len, int prot)
{
	int mine = -mapping_protect(ours + at, len, prot, -1);

	assert_int_equal(mine, error_of(mprotect(theirs + at, len, prot)));
	/* What an mprotect that met a hole has done is nobody's business. */
	if (mine)
		both_decommit(at, len);
}

static void both_advise(size_t at, size_t len, int advice)
{
	bool wipe = advice == MADV_WIPEONFORK || advice == MADV_KEEPONFORK;
	int mine = -mapping_advise(ours + at, len, advice);
	int kernels = error_of(madvise(theirs + at, len, advice));

	/* On a range that is captured in part it is declined. */
	if (wipe && mine == EINVAL)
		both_decommit(at, len);
	else
		assert_int_equal(mine, kernels);
}

static bool poke(char *at, unsigned char value)
{
	struct iovec from = { .iov_base = &value, .iov_len = 1 };
	struct iovec to = { .iov_base = at, .iov_len = 1 };

	return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == 1;
}

static void both_write(size_t at, size_t len, unsigned char value)
{
	for (size_t i = 0; i < len; i += PAGE / 2) {
		bool mine = poke(ours + at + i, value);

		assert_int_equal(mine, poke(theirs + at + i, value));
	}
}

/* A page as it looks from inside: -1 unmapped, -2 not readable, else a sum. */
static long look(char *at)
{
	unsigned char page[PAGE];
	struct iovec to = { .iov_base = page, .iov_len = PAGE };
	struct iovec from = { .iov_base = at, .iov_len = PAGE };
	long sum = 0;

	if (msync(at, PAGE, MS_ASYNC) < 0)
		return -1;
	if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != (ssize_t)PAGE)
		return -2;
	for (size_t i = 0; i < PAGE; i++)
		sum = (sum * 31 + page[i]) & 0xffffff;
	return sum;
}

/* The hole is filled again, or something else of the process would come to lie there. */
static void both_unmap(size_t at, size_t len)
{
	assert_int_equal(-mapping_unmap(ours + at, len), error_of(munmap(theirs + at, len)));
	for (size_t i = 0; i < len; i += PAGE) {
		assert_int_equal(look(ours + at + i), -1);
		assert_int_equal(look(theirs + at + i), -1);
	}
	both_decommit(at, len);
}

/* The first page that differs, or -1. */
static int differs(void)
{
	for (size_t i = 0; i < PAGES; i++)
		if (look(ours + i * PAGE) != look(theirs + i * PAGE))
			return (int)i;
	return -1;
}

/* ---- fork ---- */

static void child_of(int from_parent, int to_parent)
{
	char byte;

	fork_child();
	if (differs() >= 0)
		_exit(1);
	if (write(to_parent, "", 1) != 1 || read(from_parent, &byte, 1) != 1)
		_exit(2);
	/* What the parent has written since must not show. */
	if (differs() >= 0)
		_exit(3);
	for (size_t i = 0; i < PAGES; i++)
		if (poke(ours + i * PAGE, 0xc1) != poke(theirs + i * PAGE, 0xc1))
			_exit(4);
	_exit(differs() >= 0 ? 5 : 0);
}

static void expect_child(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void both_fork(void)
{
	int go[2], done[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(done), 0);
	fork_prepare();
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* the handlers by hand */
	if (pid == 0)
		child_of(go[0], done[1]);
	assert_true(pid > 0);
	fork_parent();
	/* A child that failed before would leave the read waiting. */
	close(done[1]);
	assert_int_equal(read(done[0], &byte, 1), 1);
	both_write(0, AREA, (unsigned char)rnd(256));
	assert_int_equal(write(go[1], "", 1), 1);
	expect_child(pid);
	assert_int_equal(differs(), -1);
	close(go[0]);
	close(go[1]);
	close(done[0]);
}

static void a_random_step(void)
{
	static const int prots[] = { RW, RW, RW, PROT_READ, PROT_NONE };
	static const int advices[] = { MADV_DONTNEED,	MADV_DONTNEED,	 MADV_REMOVE,
				       MADV_DONTFORK,	MADV_DOFORK,	 MADV_WIPEONFORK,
				       MADV_KEEPONFORK, MADV_NOHUGEPAGE, MADV_DONTDUMP };
	size_t at = rnd(PAGES) * PAGE;
	size_t len = (1 + rnd((unsigned int)((AREA - at) / PAGE))) * PAGE;

	switch (rnd(12)) {
	case 0:
	case 1:
		both_commit(at, len, 0);
		break;
	case 2:
		both_decommit(at, len);
		break;
	case 3:
		both_unmap(at, len);
		break;
	case 4:
	case 5:
		both_protect(at, len, prots[rnd(5)]);
		break;
	case 6:
	case 7:
	case 8:
		both_advise(at, len, advices[rnd(9)]);
		break;
	default:
		both_write(at, len, (unsigned char)rnd(256));
	}
}

static void behaves_as_private_memory(void **state)
{
	(void)state;
	for (int step = 0; step < STEPS; step++) {
		a_random_step();
		assert_int_equal(differs(), -1);
		if (step % 20 == 19)
			both_fork();
	}
}

/* ---- mremap ---- */

static char *new_pattern(size_t len)
{
	char *p = mapping_new(NULL, len, RW, ANON);

	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(i * 7 + i / PAGE);
	return p;
}

static bool pattern_is(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != (char)(i * 7 + i / PAGE))
			return false;
	return true;
}

static void growing_moves_and_keeps(void **state)
{
	char *p = new_pattern(4 * PAGE);
	char *q;

	(void)state;
	assert_int_equal(mapping_move(p, 4 * PAGE, 8 * PAGE, 0, NULL), -ENOMEM);
	q = (char *)mapping_move(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, NULL);
	assert_false(sys_is_error((long)q));
	assert_true(pattern_is(q, 4 * PAGE));
	for (size_t i = 4 * PAGE; i < 8 * PAGE; i++)
		assert_int_equal(q[i], 0);
	assert_int_equal(look(p), -1);
	munmap(q, 8 * PAGE);
}

static void shrinking_stays(void **state)
{
	char *p = new_pattern(4 * PAGE);

	(void)state;
	assert_ptr_equal(mapping_move(p, 4 * PAGE, PAGE, 0, NULL), p);
	assert_true(pattern_is(p, PAGE));
	assert_int_equal(look(p + PAGE), -1);
	assert_int_equal(mapping_unmap(p, PAGE), 0);
}

static void fixed_replaces(void **state)
{
	char *p = new_pattern(4 * PAGE);
	char *other = new_pattern(6 * PAGE);

	(void)state;
	assert_int_equal(
		mapping_move(p, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE),
		-EINVAL);
	assert_ptr_equal(
		mapping_move(p, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other + PAGE),
		other + PAGE);
	assert_true(pattern_is(other, PAGE));
	assert_true(pattern_is(other + PAGE, 4 * PAGE));
	assert_int_equal(look(p), -1);
	assert_int_equal(mapping_unmap(other, 6 * PAGE), 0);
}

static void dontunmap_leaves_zeroes(void **state)
{
	int flags = MREMAP_MAYMOVE | MREMAP_DONTUNMAP;
	char *p = new_pattern(4 * PAGE);
	char *q = (char *)mapping_move(p, 4 * PAGE, 4 * PAGE, flags, NULL);

	(void)state;
	assert_false(sys_is_error((long)q));
	assert_true(pattern_is(q, 4 * PAGE));
	assert_int_equal(look(p), 0);
	munmap(q, 4 * PAGE);
	munmap(p, 4 * PAGE);
}

static void bad_moves_are_refused(void **state)
{
	char *p = new_pattern(4 * PAGE);

	(void)state;
	assert_int_equal(mapping_move(p, 0, PAGE, MREMAP_MAYMOVE, NULL), -EINVAL);
	assert_int_equal(mapping_move(p, PAGE, 0, MREMAP_MAYMOVE, NULL), -EINVAL);
	assert_int_equal(mapping_move(p + 1, PAGE, PAGE, 0, NULL), -EINVAL);
	assert_int_equal(mapping_move(p, PAGE, PAGE, MREMAP_FIXED, ours), -EINVAL);
	assert_true(pattern_is(p, 4 * PAGE));
	assert_int_equal(mapping_unmap(p, 4 * PAGE), 0);
}

/* ---- what blocks keep ---- */

static void a_freed_block_is_plain_again(void **state)
{
	char *p = block_alloc(4 * PAGE, PAGE, false);

	(void)state;
	assert_non_null(p);
	assert_int_equal(mapping_protect(p + PAGE, PAGE, PROT_NONE, -1), 0);
	assert_int_equal(mapping_advise(p, PAGE, MADV_DONTFORK), 0);
	both_fork();
	memset(p, 1, PAGE);
	memset(p + 2 * PAGE, 1, 2 * PAGE);
	assert_int_equal(mapping_advise(p + 2 * PAGE, PAGE, MADV_DONTNEED), 0);
	assert_int_equal(p[2 * PAGE], 0);
	assert_int_equal(p[3 * PAGE], 1);
	block_free(p);
	p = block_alloc(4 * PAGE, PAGE, false);
	assert_non_null(p);
	memset(p, 2, 4 * PAGE);
	block_free(p);
}

static void wants_only_what_can_be_emulated(void **state)
{
	(void)state;
	assert_true(mapping_wanted(PAGE, RW, ANON));
	assert_true(mapping_wanted(PAGE, RW, ANON | MAP_FIXED | MAP_POPULATE));
	assert_false(mapping_wanted(PAGE - 1, RW, ANON));
	assert_false(mapping_wanted(PAGE, PROT_READ, ANON));
	assert_false(mapping_wanted(PAGE, PROT_NONE, ANON));
	assert_false(mapping_wanted(PAGE, RW | PROT_EXEC, ANON));
	assert_false(mapping_wanted(PAGE, RW, ANON | MAP_NORESERVE));
	assert_false(mapping_wanted(PAGE, RW, ANON | MAP_STACK));
	assert_false(mapping_wanted(PAGE, RW, ANON | MAP_GROWSDOWN));
	assert_false(mapping_wanted(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS));
	assert_false(mapping_wanted(PAGE, RW, MAP_PRIVATE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(behaves_as_private_memory, setup_copy, teardown),
		cmocka_unit_test_setup_teardown(behaves_as_private_memory, setup_private, teardown),
		cmocka_unit_test_setup_teardown(growing_moves_and_keeps, setup_copy, teardown),
		cmocka_unit_test_setup_teardown(shrinking_stays, setup_copy, teardown),
		cmocka_unit_test_setup_teardown(fixed_replaces, setup_copy, teardown),
		cmocka_unit_test_setup_teardown(dontunmap_leaves_zeroes, setup_copy, teardown),
		cmocka_unit_test_setup_teardown(bad_moves_are_refused, setup_copy, teardown),
		cmocka_unit_test_setup_teardown(a_freed_block_is_plain_again, setup_copy, teardown),
		cmocka_unit_test_setup_teardown(a_freed_block_is_plain_again, setup_private,
						teardown),
		cmocka_unit_test_setup_teardown(wants_only_what_can_be_emulated, setup_copy,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
