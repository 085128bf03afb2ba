/* SPDX-License-Identifier: MIT */
/*
 * mremap of captured mappings against the kernel's own of private memory: pieces grow, shrink,
 * move, and are cut in two by the same calls, and have the same content afterwards.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/blocks.h"
#include "preload/brief.h"
#include "preload/config.h"
#include "preload/fork.h"
#include "preload/mappings.h"
#include "preload/regions.h"
#include "preload/shim.h"
#include "preload/stats.h"
#include "preload/sys.h"
#include "tests/unit/cmocka_all.h"

#define PAGE 4096UL
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define PIECES 8
#define PAGES_MAX 48U
#define STEPS 1500

static struct piece {
	char *ours;   /* captured where it is mapped */
	char *theirs; /* never captured */
	size_t len;   /* 0: none */
} pieces[PIECES];

static unsigned int seed;

static unsigned int rnd(unsigned int below)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % below;
}

static int setup(void **state)
{
	char *none = NULL;

	(void)state;
	config_read(&none, &config);
	shim.mmap_min = PAGE;
	shim.on = true;
	seed = 7;
	return 0;
}

static char *plain(size_t len)
{
	char *p = mmap(NULL, len, RW, ANON, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static size_t some_pages(void)
{
	return (1 + rnd(PAGES_MAX)) * PAGE;
}

static void make(struct piece *p)
{
	p->len = some_pages();
	p->ours = mapping_new(NULL, p->len, RW, ANON);
	assert_non_null(p->ours);
	p->theirs = plain(p->len);
}

static void drop(struct piece *p)
{
	assert_int_equal(mapping_unmap(p->ours, p->len), 0);
	assert_int_equal(munmap(p->theirs, p->len), 0);
	p->len = 0;
}

static void write_some(struct piece *p)
{
	size_t at = rnd((unsigned int)(p->len / PAGE)) * PAGE;
	size_t len = (1 + rnd((unsigned int)((p->len - at) / PAGE))) * PAGE;
	int value = (int)rnd(256);

	memset(p->ours + at, value, len);
	memset(p->theirs + at, value, len);
}

static void resize(struct piece *p)
{
	size_t len = some_pages();
	long ours = mapping_move(p->ours, p->len, len, MREMAP_MAYMOVE, NULL);

	assert_false(sys_is_error(ours));
	p->ours = (char *)ours;
	p->theirs = mremap(p->theirs, p->len, len, MREMAP_MAYMOVE);
	assert_ptr_not_equal(p->theirs, MAP_FAILED);
	p->len = len;
}

/* Elsewhere, perhaps longer than it was. */
static void move(struct piece *p, char *from_ours, char *from_theirs, size_t old_len, size_t len)
{
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	char *ours = plain(len);
	char *theirs = plain(len);

	assert_ptr_equal((char *)mapping_move(from_ours, old_len, len, flags, ours), ours);
	assert_ptr_equal(mremap(from_theirs, old_len, len, flags, theirs), theirs);
	*p = (struct piece){ ours, theirs, len };
}

static void cut_in_two(struct piece *p, struct piece *rest)
{
	size_t keep = p->len / PAGE / 2 * PAGE;

	if (!keep || rest->len)
		return;
	move(rest, p->ours + keep, p->theirs + keep, p->len - keep, some_pages());
	p->len = keep;
}

/* By a system call or by the wrapper: either end. */
static void unmap_some(struct piece *p)
{
	size_t len = p->len / PAGE / 3 * PAGE;
	size_t at = rnd(2) ? p->len - len : 0;

	if (!len)
		return;
	if (rnd(4))
		assert_int_equal(mapping_unmap(p->ours + at, len), 0);
	else
		assert_int_equal(syscall(SYS_munmap, p->ours + at, len), 0);
	assert_int_equal(munmap(p->theirs + at, len), 0);
	if (!at) {
		p->ours += len;
		p->theirs += len;
	}
	p->len -= len;
}

static void forget_some(struct piece *p)
{
	size_t len = (1 + rnd((unsigned int)(p->len / PAGE))) * PAGE;

	assert_int_equal(mapping_advise(p->ours, len, MADV_DONTNEED), 0);
	assert_int_equal(madvise(p->theirs, len, MADV_DONTNEED), 0);
}

static bool all_same(void)
{
	for (int i = 0; i < PIECES; i++)
		if (pieces[i].len && memcmp(pieces[i].ours, pieces[i].theirs, pieces[i].len) != 0)
			return false;
	return true;
}

static void check_in_a_child(void)
{
	int status;
	pid_t pid;

	fork_prepare();
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* the handlers by hand */
	if (pid == 0) {
		fork_child();
		_exit(all_same() ? 0 : 1);
	}
	assert_true(pid > 0);
	fork_parent();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_random_step(void)
{
	struct piece *p = &pieces[rnd(PIECES)];

	if (!p->len) {
		make(p);
		return;
	}
	switch (rnd(10)) {
	case 0:
		drop(p);
		break;
	case 1:
	case 2:
	case 3:
		resize(p);
		break;
	case 4:
		cut_in_two(p, &pieces[rnd(PIECES)]);
		break;
	case 5:
		move(p, p->ours, p->theirs, p->len, some_pages());
		break;
	case 6:
		unmap_some(p);
		break;
	case 7:
		forget_some(p);
		break;
	default:
		write_some(p);
	}
}

static void moves_as_private_memory(void **state)
{
	(void)state;
	for (int step = 0; step < STEPS; step++) {
		a_random_step();
		assert_true(all_same());
		if (step % 100 == 99)
			check_in_a_child();
	}
	assert_true(stat_get(STAT_MAPPINGS) > 50);
	for (int i = 0; i < PIECES; i++)
		if (pieces[i].len)
			drop(&pieces[i]);
}

static bool is(const char *p, size_t len, char value)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != value)
			return false;
	return true;
}

/* Nothing is copied: it is the same memory, longer, and still captured. */
static void growing_copies_nothing(void **state)
{
	char *p = mapping_new(NULL, 4 * PAGE, RW, ANON);
	unsigned long long before = stat_get(STAT_MAPPINGS);
	char *q;

	(void)state;
	assert_non_null(p);
	memset(p, 5, 4 * PAGE);
	for (size_t len = 8; len <= 1024; len *= 2) {
		q = (char *)mapping_move(p, len / 2 * PAGE, len * PAGE, MREMAP_MAYMOVE, NULL);
		assert_false(sys_is_error((long)q));
		p = q;
	}
	assert_true(is(p, 4 * PAGE, 5) && is(p + 4 * PAGE, 1020 * PAGE, 0));
	assert_int_equal(stat_get(STAT_MAPPINGS), before);
	assert_true(regions_touch(p + 1023 * PAGE, PAGE));
	assert_int_equal(mapping_unmap(p, 1024 * PAGE), 0);
}

/* What a call that no wrapper saw has left elsewhere is not what grows. */
static void what_lies_elsewhere_too_does_not_grow_back(void **state)
{
	char *p = mapping_new(NULL, 8 * PAGE, RW, ANON);
	char *q;
	long to;

	(void)state;
	assert_non_null(p);
	memset(p, 7, 8 * PAGE);
	q = (char *)syscall(SYS_mremap, p, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
			    NULL);
	assert_ptr_not_equal(q, MAP_FAILED);
	assert_int_equal(mapping_move(p, 8 * PAGE, 4 * PAGE, 0, NULL), (long)p);
	to = mapping_move(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, NULL);
	assert_false(sys_is_error(to));
	assert_true(is((char *)to, 4 * PAGE, 7) && is((char *)to + 4 * PAGE, 4 * PAGE, 0));
	assert_true(is(q, 8 * PAGE, 7));
	munmap(q, 8 * PAGE);
	assert_int_equal(mapping_unmap((char *)to, 8 * PAGE), 0);
}

/* Longer by a call that no wrapper saw, and written to. */
static char *grown_behind_our_back(void)
{
	char *p = mapping_new(NULL, 4 * PAGE, RW, ANON);

	assert_non_null(p);
	p = (char *)syscall(SYS_mremap, p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, NULL);
	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, 9, 8 * PAGE);
	return p;
}

static void what_grew_behind_our_back_is_not_found_later(void **state)
{
	char *p = grown_behind_our_back();
	long to;

	(void)state;
	assert_int_equal(syscall(SYS_munmap, p + 4 * PAGE, 4 * PAGE), 0);
	to = mapping_move(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, NULL);
	assert_false(sys_is_error(to));
	assert_true(is((char *)to, 4 * PAGE, 9) && is((char *)to + 4 * PAGE, 4 * PAGE, 0));
	assert_int_equal(mapping_unmap((char *)to, 8 * PAGE), 0);
}

static void what_grew_behind_our_back_stays(void **state)
{
	char *p = grown_behind_our_back();
	long to;

	(void)state;
	assert_int_equal(syscall(SYS_munmap, p + 4 * PAGE, 2 * PAGE), 0);
	to = mapping_move(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, NULL);
	assert_false(sys_is_error(to));
	assert_true(is((char *)to, 4 * PAGE, 9) && is((char *)to + 4 * PAGE, 4 * PAGE, 0));
	assert_true(is(p + 6 * PAGE, 2 * PAGE, 9));
	munmap(p + 6 * PAGE, 2 * PAGE);
	assert_int_equal(mapping_unmap((char *)to, 8 * PAGE), 0);
}

static void look(void)
{
	assert_true(blocks_lock_within(1000));
	regions_look();
	blocks_unlock();
}

/* Nor does who is given the same place in the file. */
static void what_grew_behind_our_back_is_given_back(void **state)
{
	char *p;

	(void)state;
	look(); /* so that it has the place that is given away first */
	p = grown_behind_our_back();
	assert_int_equal(syscall(SYS_munmap, p, 8 * PAGE), 0);
	look();
	p = mapping_new(NULL, 8 * PAGE, RW, ANON);
	assert_non_null(p);
	assert_true(is(p, 8 * PAGE, 0));
	assert_int_equal(mapping_unmap(p, 8 * PAGE), 0);
}

/* ---- mappings that do not last ---- */

static void brief_ones_are_left_alone(void **state)
{
	unsigned int captured = 0;
	bool left = false;

	(void)state;
	for (int i = 0; i < 4; i++) {
		assert_false(brief_expected(5000 * PAGE));
		brief_note(5000 * PAGE, 1);
	}
	for (int i = 0; i < 160; i++)
		captured += !brief_expected(5000 * PAGE);
	assert_true(captured >= 10);
	/* Who is kept from running for a second has forgotten. */
	for (int tries = 0; tries < 100 && !left; tries++) {
		for (int i = 0; i < 4; i++)
			brief_note(5000 * PAGE, 1);
		left = brief_expected(5000 * PAGE);
	}
	assert_true(left);
	assert_false(brief_expected(5001 * PAGE));
	/* One lives longer. */
	brief_note(5000 * PAGE, 1000);
	assert_false(brief_expected(5000 * PAGE));
}

static void none_is_left_alone_when_told(void **state)
{
	(void)state;
	config.mmap_brief_ms = 0;
	for (int i = 0; i < 20; i++) {
		brief_note(9000 * PAGE, 0);
		assert_false(brief_expected(9000 * PAGE));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(moves_as_private_memory, setup),
		cmocka_unit_test_setup(growing_copies_nothing, setup),
		cmocka_unit_test_setup(what_lies_elsewhere_too_does_not_grow_back, setup),
		cmocka_unit_test_setup(what_grew_behind_our_back_is_not_found_later, setup),
		cmocka_unit_test_setup(what_grew_behind_our_back_stays, setup),
		cmocka_unit_test_setup(what_grew_behind_our_back_is_given_back, setup),
		cmocka_unit_test_setup(brief_ones_are_left_alone, setup),
		cmocka_unit_test_setup(none_is_left_alone_when_told, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
