/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include <ublkzc/engine.h>

#include "server/queue/segments.h"
#include "tests/unit/cmocka_all.h"

#define PAGE 4096U

/* Buffers 3 (two pages) and 7 (one page, read-only); nothing is read from them. */
static const struct buffer_view big = { .base = (uint8_t *)0x10000000, .len = 2 * PAGE };
static const struct buffer_view fixed = {
	.base = (uint8_t *)0x20000000,
	.len = PAGE,
	.read_only = true,
};

struct fixture {
	struct registry registry;
	struct segments segments;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(registry_publish(&f->registry, 3, &big), 0);
	assert_int_equal(registry_publish(&f->registry, 7, &fixed), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	return 0;
}

static void list(struct fixture *f, unsigned int i, uint16_t index, uint64_t offset, uint32_t len)
{
	f->segments.list[i] =
		(struct uapi_shmem_seg){ .index = index, .offset = offset, .len = len };
}

static void pieces_are_found_in_order(void **state)
{
	struct fixture *f = *state;
	struct segments *s = &f->segments;

	list(f, 0, 3, PAGE, PAGE);
	list(f, 1, 7, 512, 1024);
	list(f, 2, 3, 0, 512);
	assert_true(segments_find(s, 3, &f->registry, PAGE + 1536, false));
	assert_int_equal(s->nr, 3);
	assert_ptr_equal(s->iov[0].iov_base, big.base + PAGE);
	assert_int_equal(s->iov[0].iov_len, PAGE);
	assert_ptr_equal(s->iov[1].iov_base, fixed.base + 512);
	assert_int_equal(s->iov[1].iov_len, 1024);
	assert_ptr_equal(s->iov[2].iov_base, big.base);
}

static void assert_refused(struct fixture *f, uint16_t index, uint64_t offset, uint32_t len,
			   bool writable)
{
	list(f, 0, 3, 0, 512);
	list(f, 1, index, offset, len);
	assert_false(segments_find(&f->segments, 2, &f->registry, 512 + len, writable));
}

static void what_does_not_check_out_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_refused(f, 4, 0, 512, false);		    /* no such buffer */
	assert_refused(f, 3, 2 * PAGE, 512, false);	    /* behind it */
	assert_refused(f, 3, PAGE + 512, PAGE, false);	    /* over its end */
	assert_refused(f, 3, UINT64_MAX - 255, 512, false); /* around the corner */
	assert_refused(f, 3, 0, 0, false);
	assert_refused(f, 7, 0, 512, true);
	list(f, 1, 3, 512, 512);
	assert_true(segments_find(&f->segments, 2, &f->registry, 1024, true));
	assert_false(segments_find(&f->segments, 2, &f->registry, 1536, true)); /* another length */
	assert_false(segments_find(&f->segments, 0, &f->registry, 0, true));
	for (unsigned int i = 0; i < UAPI_SHMEM_SEGS_MAX; i++)
		list(f, i, 3, 0, 16);
	assert_true(segments_find(&f->segments, UAPI_SHMEM_SEGS_MAX, &f->registry,
				  UAPI_SHMEM_SEGS_MAX * 16, true));
	assert_false(segments_find(&f->segments, UAPI_SHMEM_SEGS_MAX + 1, &f->registry,
				   UAPI_SHMEM_SEGS_MAX * 16 + 16, true));
	assert_false(segments_find(&f->segments, 1ULL << 32 | 1, &f->registry, 16, true));
}

static void alignment_is_of_all_pieces(void **state)
{
	struct fixture *f = *state;
	struct segments *s = &f->segments;

	list(f, 0, 3, 0, 512);
	list(f, 1, 3, 512, PAGE);
	assert_true(segments_find(s, 2, &f->registry, PAGE + 512, true));
	assert_true(segments_aligned(s, 512, 512));
	assert_true(segments_aligned(s, 1, 1));
	assert_false(segments_aligned(s, 1024, 512));
	assert_false(segments_aligned(s, 512, 1024));
}

static void short_transfers_go_on_where_they_ended(void **state)
{
	struct fixture *f = *state;
	struct segments *s = &f->segments;
	struct ublkzc_request rq = { 0 };

	list(f, 0, 3, 0, 512);
	list(f, 1, 3, PAGE, 1024);
	list(f, 2, 3, 1024, 512);
	assert_true(segments_find(s, 3, &f->registry, 2048, true));
	rq.iov = s->iov;
	rq.nr_iov = s->nr;
	ublkzc_advance(&rq, 100);
	assert_ptr_equal(rq.iov, &s->iov[0]);
	assert_ptr_equal(s->iov[0].iov_base, big.base + 100);
	assert_int_equal(s->iov[0].iov_len, 412);
	ublkzc_advance(&rq, 412 + 1000);
	assert_ptr_equal(rq.iov, &s->iov[1]);
	assert_ptr_equal(s->iov[1].iov_base, big.base + PAGE + 1000);
	assert_int_equal(s->iov[1].iov_len, 24);
	ublkzc_advance(&rq, 24);
	assert_ptr_equal(rq.iov, &s->iov[2]);
	assert_int_equal(s->iov[2].iov_len, 512);
	ublkzc_advance(&rq, 512);
	assert_int_equal(rq.nr_iov, 0);
	assert_int_equal(rq.done, 2048);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pieces_are_found_in_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_does_not_check_out_is_refused, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(alignment_is_of_all_pieces, set_up, tear_down),
		cmocka_unit_test_setup_teardown(short_transfers_go_on_where_they_ended, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
