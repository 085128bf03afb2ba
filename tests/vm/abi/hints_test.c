/* SPDX-License-Identifier: MIT */
/*
 * hints_test.c - the driver says where requests were that did not match (UAPI_F_SHMEM_HINTS, of
 * kernel-patch/), while it is asked.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "foreign.h"

#define MEM (64 * PAGE)
#define MOST 1024U /* more than the driver keeps */

static struct uapi_shmem_hint hints[MOST];

static int ask(struct foreign *f, uint64_t seconds, unsigned int nr)
{
	return abi_command(&f->s, UAPI_CMD_HINTS, f->s.device, (uintptr_t)hints,
			   (uint16_t)(nr * sizeof(*hints)), seconds);
}

/* Of the peer's memory there. */
static const struct uapi_shmem_hint *hint_of(const struct foreign *f, int nr, size_t at)
{
	for (int i = 0; i < nr; i++)
		if (hints[i].addr == (uintptr_t)f->peer->mem + at)
			return &hints[i];
	return NULL;
}

static void nothing_is_told_before_it_is_asked_for(void **state)
{
	struct foreign *f = foreign_start(MEM);

	(void)state;
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(ask(f, 0, MOST), 0);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(ask(f, 100, MOST), 0);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_true(ask(f, 0, MOST) > 0);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(ask(f, 0, MOST), 0);
	foreign_end(f);
}

static void a_hint_says_who_where_and_how_often(void **state)
{
	struct foreign *f = foreign_start(MEM);
	const struct uapi_shmem_hint *hint;
	int nr;

	(void)state;
	assert_int_equal(ask(f, 100, MOST), 0);
	for (int i = 0; i < 5; i++)
		assert_false(foreign_read_in_place(f, 8 * PAGE, 4 * PAGE));
	assert_false(foreign_write_in_place(f, 20 * PAGE + 512, 1024));
	nr = ask(f, 100, MOST);
	assert_true(nr >= 2);
	hint = hint_of(f, nr, 8 * PAGE);
	assert_non_null(hint);
	assert_int_equal(hint->pid, f->peer->pid);
	assert_int_equal(hint->len, 4 * PAGE);
	assert_int_equal(hint->nr, 5);
	assert_int_equal(hint->flags, UAPI_HINT_PRIVATE);
	hint = hint_of(f, nr, 20 * PAGE + 512);
	assert_non_null(hint);
	assert_int_equal(hint->len, 1024);
	assert_int_equal(hint->nr, 1);
	assert_int_equal(hint->pid, f->peer->pid);
	/* they are taken */
	assert_int_equal(ask(f, 100, MOST), 0);
	/* what a hint says can be registered, and is no hint then */
	(void)foreign_take(f, 8 * PAGE, 4 * PAGE);
	assert_true(foreign_read_in_place(f, 8 * PAGE, 4 * PAGE));
	nr = ask(f, 100, MOST);
	assert_null(hint_of(f, nr, 8 * PAGE));
	foreign_end(f);
}

static void shared_memory_is_told_apart(void **state)
{
	struct foreign *f = foreign_start(MEM);
	uint8_t *shared = shared_pages(8);
	bool found = false;
	int nr;

	(void)state;
	memset(shared, 1, 8 * PAGE);
	assert_int_equal(ask(f, 100, MOST), 0);
	assert_int_equal(pread(f->s.disk_fd, shared + 3 * PAGE, PAGE, ABI_TEST_OFFSET), PAGE);
	nr = ask(f, 100, MOST);
	for (int i = 0; i < nr; i++)
		if (hints[i].flags == UAPI_HINT_FILE && hints[i].addr == 3 * PAGE &&
		    hints[i].len == PAGE && hints[i].pid == (uint32_t)getpid())
			found = true;
	assert_true(found);
	munmap(shared, 8 * PAGE);
	foreign_end(f);
}

/* Many others do not drive out what is frequent, and what there is is bounded. */
static void the_frequent_ones_stay(void **state)
{
	struct foreign *f = foreign_start(2 * MOST * PAGE);
	const struct uapi_shmem_hint *hint;
	int nr;

	(void)state;
	assert_int_equal(ask(f, 1000, MOST), 0);
	for (size_t i = 0; i < 2 * MOST; i++) {
		assert_int_equal(peer_do(f->peer, PEER_READ, i * PAGE, 512), 512);
		assert_int_equal(peer_do(f->peer, PEER_READ, 7 * PAGE, PAGE), PAGE);
	}
	nr = ask(f, 1000, 1);
	assert_int_equal(nr, 1);
	nr = ask(f, 1000, MOST);
	assert_true(nr >= 100 && nr < (int)MOST);
	hint = hint_of(f, nr, 7 * PAGE);
	if (!hint) /* it was the one that was taken first */
		return foreign_end(f);
	assert_true(hint->nr >= MOST && hint->nr <= 2 * MOST);
	foreign_end(f);
}

static void malformed_questions_are_refused(void **state)
{
	struct foreign *f = foreign_start(MEM);

	(void)state;
	assert_int_equal(ask(f, UAPI_HINT_SECONDS_MAX, 1), 0);
	assert_int_equal(ask(f, UAPI_HINT_SECONDS_MAX + 1, 1), -EINVAL);
	assert_int_equal(ask(f, 1, 0), -EINVAL);
	assert_int_equal(abi_command(&f->s, UAPI_CMD_HINTS, f->s.device, (uintptr_t)hints,
				     sizeof(*hints) - 1, 1),
			 -EINVAL);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(abi_command(&f->s, UAPI_CMD_HINTS, f->s.device, 8, sizeof(*hints), 1),
			 -EFAULT);
	foreign_end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_told_before_it_is_asked_for),
		cmocka_unit_test(a_hint_says_who_where_and_how_often),
		cmocka_unit_test(shared_memory_is_told_apart),
		cmocka_unit_test(the_frequent_ones_stay),
		cmocka_unit_test(malformed_questions_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
