/* SPDX-License-Identifier: MIT */
/*
 * edge_modes_test.c - the feature together with the device's other modes, and requests that are
 * more, or something else, than one read or write of one buffer.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/blkzoned.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

/* ---- modes ---- */

/* Each tag has a buffer of the server's; its address must not stay what a match made it. */
static void copy_buffers_serve_what_does_not_match(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);
	uint8_t *other = shared_pages(8);

	(void)state;
	assert_int_equal(abi_add(&s, UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_SHMEM_ZC), 0);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 8 * PAGE, 0), 0);
	for (int i = 0; i < 40; i++) { /* each tag's turn, more than once */
		assert_true(read_matches(&s, p + PAGE, 4 * PAGE));
		assert_last(&s, 0, PAGE);
		assert_false(read_matches(&s, other, 8 * PAGE));
		assert_true(s.last_addr >= (uintptr_t)s.buffers);
		assert_true(s.last_addr < (uintptr_t)s.buffers + ABI_DEPTH * ABI_IO_BYTES);
	}
	memset(other, 0x5a, 8 * PAGE);
	assert_false(write_matches(&s, other, 8 * PAGE));
	assert_memory_equal((void *)(uintptr_t)s.last_addr, other, 8 * PAGE);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	munmap(other, 8 * PAGE);
	assert_nothing_pinned();
}

/* With USER_COPY the driver drops NEED_GET_DATA, and so has nothing to refuse. */
static void user_copy_drops_need_get_data(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(4);

	(void)state;
	assert_int_equal(abi_add(&s, ZC_FLAGS | UBLK_F_NEED_GET_DATA), 0);
	assert_true(s.flags & UBLK_F_SHMEM_ZC);
	assert_false(s.flags & UBLK_F_NEED_GET_DATA);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 2 * PAGE, 0), 0);
	assert_true(write_matches(&s, p, 2 * PAGE));
	assert_true(read_matches(&s, p, 2 * PAGE));
	assert_false(read_matches(&s, p + 2 * PAGE, 2 * PAGE));
	abi_del(&s);
	munmap(p, 4 * PAGE);
}

/* Linux 6.12's ublk has no integrity data; with 7.x' see newer_modes_test. */
static void integrity_is_not_promised_where_it_is_not(void **state)
{
	struct abi_server s;

	(void)state;
	if (offers_feature(UBLK_F_INTEGRITY)) {
		print_message("it is offered\n");
		skip();
	}
	assert_int_equal(abi_add(&s, ZC_FLAGS | UBLK_F_INTEGRITY), 0);
	assert_true(s.flags & UBLK_F_SHMEM_ZC);
	assert_false(s.flags & UBLK_F_INTEGRITY);
	abi_del(&s);
}

/* ---- merged requests ---- */

#define NR_MERGED 4U

/*
 * Read neighbouring pages of the disk into these pages, at once: the block layer makes one
 * request of them while they are plugged.  True if the server got one.
 */
static bool read_merged(struct abi_server *s, uint8_t *const pages[NR_MERGED])
{
	unsigned long long before = s->nr_matched + s->nr_copied;
	struct io_uring ring;
	struct io_uring_cqe *cqe;

	assert_int_equal(io_uring_queue_init(NR_MERGED, &ring, 0), 0);
	for (unsigned int i = 0; i < NR_MERGED; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

		if (!sqe)
			fail_msg("no ring entry");
		memset(pages[i], 0x11, PAGE);
		io_uring_prep_read(sqe, s->disk_fd, pages[i], PAGE, ABI_TEST_OFFSET + i * PAGE);
	}
	assert_int_equal(io_uring_submit(&ring), NR_MERGED);
	for (unsigned int i = 0; i < NR_MERGED; i++) {
		assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
		assert_int_equal(cqe->res, PAGE);
		io_uring_cqe_seen(&ring, cqe);
	}
	io_uring_queue_exit(&ring);
	return s->nr_matched + s->nr_copied - before == 1 && s->last_bytes == NR_MERGED * PAGE;
}

static void assert_pages(uint8_t *const pages[NR_MERGED], uint8_t value)
{
	for (unsigned int i = 0; i < NR_MERGED; i++)
		for (size_t at = 0; at < PAGE; at++)
			assert_int_equal(pages[i][at], value);
}

static void merged_requests_match_if_all_of_them_does(void **state)
{
	struct abi_server s;
	uint8_t *a = shared_pages(8), *b = shared_pages(8);
	uint8_t *const in_a_row[] = { a + PAGE, a + 2 * PAGE, a + 3 * PAGE, a + 4 * PAGE };
	uint8_t *const out_of_order[] = { a + PAGE, a + 3 * PAGE, a + 2 * PAGE, a + 4 * PAGE };
	uint8_t *const of_two[] = { a, b, a + PAGE, b + PAGE };
	uint8_t *const half_registered[] = { a + 6 * PAGE, a + 7 * PAGE, b + 6 * PAGE,
					     b + 7 * PAGE };

	(void)state;
	add_zc(&s);
	abi_start(&s);
	allow_merging(&s);
	assert_int_equal(abi_reg(&s, a, 8 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, b, 6 * PAGE, 0), 1);
	assert_true(read_merged(&s, in_a_row));
	assert_true(s.last_op_flags & UAPI_IO_F_SHMEM_ZC);
	assert_last(&s, 0, PAGE);
	assert_pages(in_a_row, 0x11);
	assert_true(read_merged(&s, out_of_order));
	assert_false(s.last_op_flags & UAPI_IO_F_SHMEM_ZC);
	assert_pages(out_of_order, ABI_FILL);
	assert_true(read_merged(&s, of_two));
	assert_false(s.last_op_flags & UAPI_IO_F_SHMEM_ZC);
	assert_pages(of_two, ABI_FILL);
	assert_true(read_merged(&s, half_registered));
	assert_false(s.last_op_flags & UAPI_IO_F_SHMEM_ZC);
	assert_pages(half_registered, ABI_FILL);
	abi_del(&s);
	munmap(a, 8 * PAGE);
	munmap(b, 8 * PAGE);
	assert_nothing_pinned();
}

/* ---- zones ---- */

#define NR_ZONES (ABI_DEVICE_BYTES / ABI_ZONE_BYTES)

static void assert_all_zones_reported(const struct abi_server *s)
{
	struct blk_zone_report *report =
		calloc(1, sizeof(*report) + NR_ZONES * sizeof(struct blk_zone));

	assert_non_null(report);
	report->nr_zones = NR_ZONES;
	assert_int_equal(ioctl(s->disk_fd, BLKREPORTZONE, report), 0);
	assert_int_equal(report->nr_zones, NR_ZONES);
	for (unsigned int i = 0; i < NR_ZONES; i++) {
		assert_int_equal(report->zones[i].start, i * ABI_ZONE_BYTES >> 9);
		assert_int_equal(report->zones[i].len, ABI_ZONE_BYTES >> 9);
	}
	free(report);
}

/* A report's data is the kernel's own memory, and is never matched; zones' data is. */
static void zoned_devices_match_data_and_report_zones(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(64);
	int ret;

	(void)state;
	ret = abi_add(&s, ZC_FLAGS | UBLK_F_ZONED);
	if (ret) {
		print_message("this kernel has no zoned devices: %s\n", strerror(-ret));
		skip();
	}
	assert_true(s.flags & UBLK_F_ZONED);
	assert_int_equal(abi_reg(&s, p, 64 * PAGE, 0), 0);
	abi_start(&s);
	assert_all_zones_reported(&s);
	assert_true(read_matches(&s, p + PAGE, 16 * PAGE));
	assert_last(&s, 0, PAGE);
	assert_true(write_matches(&s, p + 2 * PAGE, 16 * PAGE)); /* at the start of a zone */
	assert_last(&s, 0, 2 * PAGE);
	assert_all_zones_reported(&s);
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_false(read_matches(&s, p, 16 * PAGE));
	assert_all_zones_reported(&s);
	abi_del(&s);
	munmap(p, 64 * PAGE);
	assert_nothing_pinned();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copy_buffers_serve_what_does_not_match),
		cmocka_unit_test(user_copy_drops_need_get_data),
		cmocka_unit_test(integrity_is_not_promised_where_it_is_not),
		cmocka_unit_test(merged_requests_match_if_all_of_them_does),
		cmocka_unit_test(zoned_devices_match_data_and_report_zones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
