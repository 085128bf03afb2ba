/* SPDX-License-Identifier: MIT */
/*
 * segments_test.c - the driver lists the pieces of requests that are scattered over registered
 * memory (UAPI_F_SHMEM_SEGS, of kernel-patch/).  Skipped on one that does not offer it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define SEGS_FLAGS (ZC_FLAGS | UAPI_F_SHMEM_SEGS)

/* How a vectored read was handed over. */
enum outcome { COPIED, MATCHED, LISTED };

static enum outcome read_vector(struct abi_server *s, const struct iovec *iov, int nr)
{
	unsigned long long matched = s->nr_matched, listed = s->nr_listed, copied = s->nr_copied;
	ssize_t total = 0;

	for (int i = 0; i < nr; i++) {
		memset(iov[i].iov_base, 0x11, iov[i].iov_len);
		total += (ssize_t)iov[i].iov_len;
	}
	assert_int_equal(preadv(s->disk_fd, iov, nr, ABI_TEST_OFFSET), total);
	assert_int_equal(s->nr_matched + s->nr_listed + s->nr_copied,
			 matched + listed + copied + 1);
	for (int i = 0; i < nr; i++)
		assert_int_equal(*(uint8_t *)iov[i].iov_base,
				 s->nr_copied > copied ? ABI_FILL : 0x11);
	if (s->nr_listed > listed)
		return LISTED;
	return s->nr_matched > matched ? MATCHED : COPIED;
}

static void assert_seg(const struct abi_server *s, int i, unsigned int index, uint64_t offset,
		       uint32_t len)
{
	assert_int_equal(s->last_list[i].index, index);
	assert_int_equal(s->last_list[i].offset, offset);
	assert_int_equal(s->last_list[i].len, len);
	assert_int_equal(s->last_list[i].reserved, 0);
}

static void requests_over_two_buffers_are_listed(void **state)
{
	struct abi_server s;
	uint8_t *a = shared_pages(8), *b = a + 4 * PAGE;
	struct iovec iov[] = { { a, PAGE },	      { b + PAGE, PAGE }, { a + 2 * PAGE, PAGE },
			       { a + 3 * PAGE, 512 }, { b + 512, 1024 },  { b + 2 * PAGE, 2560 } };

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	add_with(&s, SEGS_FLAGS);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, a, 4 * PAGE, 0), 0);
	assert_int_equal(read_vector(&s, iov, 6), COPIED); /* half of it is not registered */
	assert_int_equal(abi_reg(&s, b, 4 * PAGE, 0), 1);
	assert_int_equal(read_vector(&s, iov, 6), LISTED);
	assert_false(s.last_op_flags & UAPI_IO_F_SHMEM_ZC);
	assert_int_equal(s.last_addr, 5);
	assert_seg(&s, 0, 0, 0, PAGE);
	assert_seg(&s, 1, 1, PAGE, PAGE);
	assert_seg(&s, 2, 0, 2 * PAGE, PAGE + 512);
	assert_seg(&s, 3, 1, 512, 1024);
	assert_seg(&s, 4, 1, 2 * PAGE, 2560);
	/* in one piece it is matched as ever */
	assert_int_equal(read_vector(&s, iov, 1), MATCHED);
	assert_last(&s, 0, 0);
	assert_int_equal(abi_unreg(&s, 1), 0);
	assert_int_equal(read_vector(&s, iov, 6), COPIED);
	abi_del(&s);
	munmap(a, 8 * PAGE);
	assert_nothing_pinned();
}

static void disorder_in_one_buffer_is_listed(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);
	struct iovec iov[] = { { p + 5 * PAGE, PAGE },
			       { p + 2 * PAGE, PAGE },
			       { p + 3 * PAGE, PAGE } };

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	add_with(&s, SEGS_FLAGS);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 8 * PAGE, 0), 0);
	assert_int_equal(read_vector(&s, iov, 3), LISTED);
	assert_int_equal(s.last_addr, 2);
	assert_seg(&s, 0, 0, 5 * PAGE, PAGE);
	assert_seg(&s, 1, 0, 2 * PAGE, 2 * PAGE);
	/* the same page twice */
	iov[1] = iov[0];
	assert_int_equal(pwritev(s.disk_fd, iov, 2, ABI_TEST_OFFSET), 2 * PAGE);
	assert_true(s.last_op_flags & UAPI_IO_F_SHMEM_SEGS);
	assert_seg(&s, 1, 0, 5 * PAGE, PAGE);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

/* A buffer for each piece, and each is met twice; all of them can be given up afterwards. */
static void as_many_buffers_as_segments_are_listed(void **state)
{
	enum { NR = UAPI_SHMEM_SEGS_MAX };
	struct abi_server s;
	uint8_t *p = shared_pages(NR);
	struct iovec iov[NR];

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	add_with(&s, SEGS_FLAGS);
	abi_start(&s);
	for (int i = 0; i < NR; i++)
		assert_int_equal(abi_reg(&s, p + i * PAGE, PAGE, 0), i);
	for (int i = 0; i < NR; i++)
		iov[i] = (struct iovec){ p + (NR - 1 - i) * PAGE, PAGE };
	assert_int_equal(read_vector(&s, iov, NR), LISTED);
	assert_int_equal(s.last_addr, NR);
	for (int i = 0; i < NR; i++)
		assert_seg(&s, i, (unsigned int)(NR - 1 - i), 0, PAGE);
	for (int i = 0; i < NR; i++)
		iov[i] = (struct iovec){ p + i % (NR / 2) * PAGE + (i < NR / 2 ? 0 : 512), 512 };
	assert_int_equal(read_vector(&s, iov, NR), LISTED);
	assert_int_equal(s.last_addr, NR);
	for (int i = 0; i < NR; i++)
		assert_int_equal(abi_unreg(&s, (uint64_t)i), 0);
	assert_nothing_pinned();
	abi_del(&s);
	munmap(p, NR * PAGE);
}

static void lists_that_cannot_be_written_are_not(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);
	struct iovec iov[] = { { p + 4 * PAGE, PAGE }, { p, PAGE } };
	struct uapi_shmem_seg *lists;

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	add_with(&s, SEGS_FLAGS);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 8 * PAGE, 0), 0);
	assert_int_equal(read_vector(&s, iov, 2), LISTED);
	lists = s.lists;
	s.lists = mmap(NULL, ABI_DEPTH * UAPI_SHMEM_SEGS_MAX * sizeof(*lists), PROT_READ,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(s.lists != MAP_FAILED);
	for (unsigned int i = 0; i <= ABI_DEPTH; i++) /* each tag names it after one request */
		read_vector(&s, iov, 2);
	assert_int_equal(read_vector(&s, iov, 2), COPIED);
	/* no memory is named at all */
	s.no_lists = true;
	for (unsigned int i = 0; i <= ABI_DEPTH; i++)
		read_vector(&s, iov, 2);
	assert_int_equal(read_vector(&s, iov, 2), COPIED);
	munmap(s.lists, ABI_DEPTH * UAPI_SHMEM_SEGS_MAX * sizeof(*lists));
	s.lists = lists;
	s.no_lists = false;
	for (unsigned int i = 0; i <= ABI_DEPTH; i++)
		read_vector(&s, iov, 2);
	assert_int_equal(read_vector(&s, iov, 2), LISTED);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

static void read_only_memory_is_listed_for_writes_only(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);
	struct iovec iov[] = { { p, PAGE }, { p + 4 * PAGE, PAGE } };

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	add_with(&s, SEGS_FLAGS);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, 4 * PAGE, UAPI_SHMEM_BUF_READ_ONLY), 1);
	assert_int_equal(read_vector(&s, iov, 2), COPIED);
	assert_int_equal(pwritev(s.disk_fd, iov, 2, ABI_TEST_OFFSET), 2 * PAGE);
	assert_true(s.last_op_flags & UAPI_IO_F_SHMEM_SEGS);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

/* More than the kernel puts into one bio, so that these are merged requests. */
#define MANY (UAPI_SHMEM_SEGS_MAX + 44)

static void lists_have_a_longest_length(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(MANY);
	struct iovec iov[MANY];

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	for (unsigned int i = 0; i < MANY; i++)
		iov[i] = (struct iovec){ p + (MANY - 1 - i) * PAGE, 512 };
	add_with(&s, SEGS_FLAGS);
	abi_start(&s);
	allow_merging(&s);
	assert_int_equal(abi_reg(&s, p, MANY * PAGE, 0), 0);
	assert_int_equal(read_vector(&s, iov, UAPI_SHMEM_SEGS_MAX), LISTED);
	assert_int_equal(s.last_addr, UAPI_SHMEM_SEGS_MAX);
	assert_seg(&s, UAPI_SHMEM_SEGS_MAX - 1, 0, (MANY - UAPI_SHMEM_SEGS_MAX) * PAGE, 512);
	assert_int_equal(read_vector(&s, iov, MANY), COPIED);
	abi_del(&s);
	munmap(p, MANY * PAGE);
	assert_nothing_pinned();
}

static void the_rest_of_a_short_list_is_issued_again(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);
	struct iovec iov[] = { { p + 4 * PAGE, 2 * PAGE }, { p, 2 * PAGE } };
	unsigned long long before;

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	add_with(&s, SEGS_FLAGS);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 8 * PAGE, 0), 0);
	s.halve = true;
	before = s.nr_matched;
	assert_int_equal(pwritev(s.disk_fd, iov, 2, ABI_TEST_OFFSET), 4 * PAGE);
	assert_int_equal(s.nr_listed, 1);
	assert_true(s.nr_matched > before); /* the second half is in one piece */
	s.halve = false;
	assert_int_equal(abi_unreg(&s, 0), 0);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

static void *write_two(void *arg)
{
	struct read_call *call = arg;
	struct iovec iov[] = { { call->buf, PAGE }, { call->buf + 4 * PAGE, PAGE } };

	call->res = pwritev(call->s->disk_fd, iov, 2, ABI_TEST_OFFSET);
	return NULL;
}

static void unregistering_waits_for_lists(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);
	struct read_call call = { .s = &s, .buf = p };
	struct unreg_call unreg[] = { { .s = &s, .index = 0, .res = 1 },
				      { .s = &s, .index = 1, .res = 1 } };
	pthread_t writer, threads[2];

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	add_with(&s, SEGS_FLAGS);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	s.hold = true;
	pthread_create(&writer, NULL, write_two, &call);
	while (!s.nr_held)
		usleep(1000);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, unreg_thread, &unreg[i]);
	usleep(500000);
	assert_int_equal(unreg[0].res, 1);
	assert_int_equal(unreg[1].res, 1);
	assert_true(pinned() >= 8);
	s.hold = false;
	pthread_join(writer, NULL);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(unreg[i].res, 0);
	}
	assert_int_equal(call.res, 2 * PAGE);
	assert_int_equal(s.nr_listed, 1);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

/* A listed write is in the server's hands when it dies; true if it is served in the end. */
static bool survives_its_server(uint64_t flags)
{
	struct abi_server *s = start_mortal(SEGS_FLAGS | flags);
	uint8_t *p = shared_pages(8);
	struct read_call call = { .s = s, .buf = p };
	pthread_t writer;

	assert_int_equal(abi_reg(s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	s->hold = true;
	pthread_create(&writer, NULL, write_two, &call);
	while (!s->nr_held)
		usleep(1000);
	abi_kill_process(s);
	s->hold = false;
	/* nobody completes it, yet nothing holds the first buffer any more */
	assert_int_equal(abi_unreg(s, 0), 0);
	if (flags) {
		abi_begin_recovery(s);
		abi_end_recovery(s);
	}
	pthread_join(writer, NULL);
	assert_int_equal(s->nr_listed, 0);
	assert_int_equal(abi_unreg(s, 1), 0);
	end_mortal(s);
	munmap(p, 8 * PAGE);
	return call.res == 2 * PAGE;
}

static void lists_of_a_dead_server_hold_nothing(void **state)
{
	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	assert_true(survives_its_server(UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE));
	assert_false(survives_its_server(UBLK_F_USER_RECOVERY));
	assert_false(survives_its_server(0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_over_two_buffers_are_listed),
		cmocka_unit_test(disorder_in_one_buffer_is_listed),
		cmocka_unit_test(as_many_buffers_as_segments_are_listed),
		cmocka_unit_test(lists_that_cannot_be_written_are_not),
		cmocka_unit_test(read_only_memory_is_listed_for_writes_only),
		cmocka_unit_test(lists_have_a_longest_length),
		cmocka_unit_test(the_rest_of_a_short_list_is_issued_again),
		cmocka_unit_test(unregistering_waits_for_lists),
		cmocka_unit_test(lists_of_a_dead_server_hold_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
