/* SPDX-License-Identifier: MIT */
/* Which memory a queue's ring has pinned, and that it lets go of it in time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/queue/fixed.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/server/fake_ring.h"

#define MIB (1ULL << 20)
#define MAX_IO MIB
/* Of the views: never touched. */
#define BASE ((uint8_t *)0x100000000000)

static struct {
	struct io_uring ring;
	struct registry *registry;
	struct queue_counters counters;
	struct buffer_view views[8];
	struct fixed fixed;
} t;

static int set_up(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	memset(&fake_ring, 0, sizeof(fake_ring));
	t.registry = calloc(1, sizeof(*t.registry));
	assert_int_equal(fixed_open(&t.fixed, &t.ring, t.registry, &t.counters, MAX_IO), 0);
	assert_true(fixed_wake(&t.fixed));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	fixed_close(&t.fixed);
	assert_true(fixed_let_go(&t.fixed) == UINT64_MAX);
	free(t.registry);
	return 0;
}

static const struct buffer_view *publish(unsigned int index, unsigned int view, uint64_t len)
{
	t.views[view] = (struct buffer_view){
		.base = BASE + ((uint64_t)view << 40),
		.len = len,
		.pinnable = true,
	};
	assert_int_equal(registry_publish(t.registry, index, &t.views[view]), 0);
	return &t.views[view];
}

/* A request, and a wake after it; what is found has its memory. */
static int find(unsigned int index, const struct buffer_view *view, uint64_t at, size_t len)
{
	int entry = fixed_find(&t.fixed, index, view->base + at, len);

	if (entry >= 0) {
		const struct iovec *iov = &fake_ring.table[entry];

		assert_true((uint8_t *)iov->iov_base <= view->base + at);
		assert_true((uint8_t *)iov->iov_base + iov->iov_len >= view->base + at + len);
		assert_true((uint8_t *)iov->iov_base >= view->base);
		assert_true((uint8_t *)iov->iov_base + iov->iov_len <= view->base + view->len);
	}
	return entry;
}

static int find_after(unsigned int wakes, unsigned int index, const struct buffer_view *view,
		      uint64_t at, size_t len)
{
	int entry = -1;

	while (wakes-- && entry < 0) {
		assert_true(fixed_wake(&t.fixed));
		entry = find(index, view, at, len);
	}
	return entry;
}

/* All of it, so far as there is room. */
static void enter_all(unsigned int index, const struct buffer_view *view)
{
	for (uint64_t at = 0; at < view->len; at += MAX_IO)
		find_after(8, index, view, at, view->len - at < MAX_IO ? view->len - at : MAX_IO);
}

static void memory_is_entered_when_it_has_been_used(void **state)
{
	const struct buffer_view *v = publish(3, 0, 64 * MIB);

	(void)state;
	/* A piece of 4 MiB and what begins in it. */
	for (unsigned int i = 1; i < 5; i++)
		assert_int_equal(find(3, v, 3 * MIB, MIB), -1);
	assert_int_equal(fake_ring.nr_updates, 0);
	assert_true(find(3, v, 3 * MIB, MIB) >= 0);
	assert_int_equal(fake_ring.nr_entered, 1);
	assert_true(find(3, v, 4 * MIB - 512, MIB) >= 0);
	assert_true(find(3, v, 0, 512) >= 0);
	assert_int_equal(find(3, v, 4 * MIB, 512), -1);
	/* The end of a buffer, and one that is short. */
	assert_true(find_after(5, 3, v, 63 * MIB, MIB) >= 0);
	v = publish(0, 1, 4096);
	assert_true(find_after(1, 0, v, 0, 4096) >= 0);
}

static void a_wake_enters_one_piece(void **state)
{
	const struct buffer_view *v = publish(3, 0, 64 * MIB);

	(void)state;
	for (unsigned int i = 0; i < 100; i++)
		for (unsigned int piece = 0; piece < 16; piece++)
			find(3, v, 4 * MIB * piece, MIB);
	assert_int_equal(fake_ring.nr_entered, 1);
	fixed_wake(&t.fixed);
	for (unsigned int piece = 0; piece < 16; piece++)
		find(3, v, 4 * MIB * piece, MIB);
	assert_int_equal(fake_ring.nr_entered, 2);
}

static bool is_pinned(const struct buffer_view *v)
{
	for (unsigned int i = 0; i < fake_ring.nr_table; i++) {
		uint8_t *base = fake_ring.table[i].iov_base;

		if (base && base >= v->base && base < v->base + v->len)
			return true;
	}
	return false;
}

static void nothing_outlives_its_mapping(void **state)
{
	const struct buffer_view *v = publish(3, 0, 256 * MIB);
	const struct buffer_view *other = publish(4, 1, 32 * MIB);
	unsigned int rounds = 1;

	(void)state;
	enter_all(3, v);
	enter_all(4, other);
	assert_int_equal(fake_ring.nr_entered, 64 + 8);
	registry_withdraw(t.registry, 3);
	assert_true(fixed_let_go(&t.fixed) < registry_withdrawals(t.registry));
	/* A few at a time, and nobody is told before all are out. */
	for (; !fixed_wake(&t.fixed); rounds++) {
		assert_true(fixed_let_go(&t.fixed) < registry_withdrawals(t.registry));
		assert_true(fake_ring.nr_entered >= 64 + 8 - FIXED_STEP * rounds);
	}
	assert_true(rounds >= 64 / FIXED_STEP);
	assert_true(fixed_let_go(&t.fixed) == registry_withdrawals(t.registry));
	assert_false(is_pinned(v));
	assert_int_equal(fake_ring.nr_entered, 8);
	assert_true(find(4, other, 0, MIB) >= 0);
}

/* The driver may give an index away while queues still have entries of what had it before. */
static void an_index_is_not_what_it_was(void **state)
{
	const struct buffer_view *v = publish(3, 0, 64 * MIB);
	const struct buffer_view *heir;

	(void)state;
	enter_all(3, v);
	registry_withdraw(t.registry, 3);
	heir = publish(3, 1, 64 * MIB);
	for (uint64_t at = 0; at < 64 * MIB; at += MIB)
		assert_int_equal(find(3, heir, at, MIB), -1);
	while (!fixed_wake(&t.fixed))
		assert_int_equal(find(3, heir, 0, MIB), -1);
	assert_false(is_pinned(v));
	assert_true(find_after(5, 3, heir, 0, MIB) >= 0);
}

static void what_is_refused_is_not_asked_again_for_nothing(void **state)
{
	const struct buffer_view *v = publish(3, 0, 64 * MIB);
	const struct buffer_view *other = publish(4, 1, 4096);

	(void)state;
	assert_true(find_after(1, 4, other, 0, 4096) >= 0);
	fake_ring.update_error = -ENOMEM; /* as for RLIMIT_MEMLOCK */
	fake_ring.nr_updates = 0;
	enter_all(3, v);
	assert_int_equal(fake_ring.nr_updates, 1);
	assert_int_equal(counter_get(&t.counters.fixed_refused), 1);
	assert_int_equal(find(3, v, 0, MIB), -1);
	assert_true(find(4, other, 0, 4096) >= 0);
	/* When something has gone there may be room. */
	fake_ring.update_error = 0;
	enter_all(3, v);
	assert_int_equal(fake_ring.nr_entered, 1);
	assert_int_equal(counter_get(&t.counters.fixed_bytes), 4096);
	registry_withdraw(t.registry, 4);
	enter_all(3, v);
	assert_int_equal(fake_ring.nr_entered, 16);
	/* The last piece has nothing behind it. */
	assert_int_equal(counter_get(&t.counters.fixed_bytes), 64 * MIB + 15 * t.fixed.max_io);
	registry_withdraw(t.registry, 3);
	while (!fixed_wake(&t.fixed))
		;
	assert_int_equal(counter_get(&t.counters.fixed_bytes), 0);
}

/* A hole is one piece's affair. */
static void memory_with_a_hole_stays_out(void **state)
{
	const struct buffer_view *v = publish(3, 0, 64 * MIB);

	(void)state;
	fake_ring.update_error = -EFAULT;
	assert_int_equal(find_after(100, 3, v, 0, MIB), -1);
	assert_int_equal(fake_ring.nr_updates, 1);
	assert_int_equal(counter_get(&t.counters.fixed_refused), 0);
	fake_ring.update_error = 0;
	assert_int_equal(find_after(100, 3, v, 0, MIB), -1);
	assert_true(find_after(5, 3, v, 4 * MIB, MIB) >= 0);
	registry_withdraw(t.registry, 3);
	assert_true(fixed_wake(&t.fixed));
	assert_int_equal(fake_ring.nr_entered, 0);
}

static void what_cannot_be_pinned_is_not_tried(void **state)
{
	const struct buffer_view *v = publish(3, 0, 64 * MIB);

	(void)state;
	t.views[0].pinnable = false;
	enter_all(3, v);
	assert_int_equal(fake_ring.nr_updates, 0);
	/* Nothing is known under that index. */
	assert_int_equal(fixed_find(&t.fixed, UAPI_SHMEM_BUF_INDEX_MAX, BASE, 512), -1);
	assert_int_equal(fixed_find(&t.fixed, UINT32_MAX, BASE, 512), -1);
}

static void a_full_table_is_no_error(void **state)
{
	const struct buffer_view *v = publish(3, 0, (FIXED_ENTRIES - 8) * 4 * MIB);
	const struct buffer_view *more = publish(UAPI_SHMEM_BUF_INDEX_MAX, 1, 64 * MIB);

	(void)state;
	enter_all(3, v);
	enter_all(UAPI_SHMEM_BUF_INDEX_MAX, more);
	assert_int_equal(fake_ring.nr_entered, FIXED_ENTRIES);
	assert_true(find(UAPI_SHMEM_BUF_INDEX_MAX, more, 0, MIB) >= 0);
	assert_int_equal(find(UAPI_SHMEM_BUF_INDEX_MAX, more, 63 * MIB, MIB), -1);
	assert_int_equal(counter_get(&t.counters.fixed_refused), 0);
}

static void larger_requests_have_larger_pieces(void **state)
{
	const struct buffer_view *v = publish(3, 0, 256 * MIB);

	(void)state;
	fixed_close(&t.fixed);
	assert_int_equal(fixed_open(&t.fixed, &t.ring, t.registry, &t.counters, 32U << 20), 0);
	assert_true(find_after(2, 3, v, 31 * MIB, 32 * MIB) >= 0);
	assert_true(find_after(2, 3, v, 224 * MIB, 32 * MIB) >= 0);
}

static void without_a_table_all_goes_on(void **state)
{
	const struct buffer_view *v = publish(3, 0, 64 * MIB);

	(void)state;
	fixed_close(&t.fixed);
	fake_ring.sparse_error = -EINVAL;
	assert_int_equal(fixed_open(&t.fixed, &t.ring, t.registry, &t.counters, MAX_IO), -EINVAL);
	assert_true(fixed_let_go(&t.fixed) == UINT64_MAX);
	assert_false(fixed_needs_plain_files(&t.fixed));
	enter_all(3, v);
	assert_int_equal(fake_ring.nr_updates, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(memory_is_entered_when_it_has_been_used),
		T(a_wake_enters_one_piece),
		T(nothing_outlives_its_mapping),
		T(an_index_is_not_what_it_was),
		T(what_is_refused_is_not_asked_again_for_nothing),
		T(memory_with_a_hole_stays_out),
		T(what_cannot_be_pinned_is_not_tried),
		T(a_full_table_is_no_error),
		T(larger_requests_have_larger_pieces),
		T(without_a_table_all_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
