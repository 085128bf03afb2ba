/* SPDX-License-Identifier: MIT */
/*
 * abi_test.c - does the running driver's shared-memory zero copy keep its ABI?
 *
 * Runs on the stock 7.x driver and on 6.12 with kernel-patch/.  Where they
 * differ on purpose (kernel-patch/differences.md), the test finds out which it
 * has by what it does, or only 6.12 has ours, and prints which it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

/* ---- errors ---- */

static void reg_refuses_what_is_malformed(void **state)
{
	struct abi_server s;
	char *p = shared_pages(4);
	uint64_t addr = (uintptr_t)p;

	(void)state;
	add_zc(&s);
	assert_int_equal(reg_raw(&s, addr, 0, 0, 0), -EINVAL);
	assert_int_equal(reg_raw(&s, addr, PAGE + 1, 0, 0), -EINVAL);
	assert_int_equal(reg_raw(&s, addr + 1, PAGE, 0, 0), -EINVAL);
	assert_int_equal(reg_raw(&s, addr, PAGE, 2, 0), -EINVAL);
	assert_int_equal(reg_raw(&s, addr, PAGE, 0, 1), -EINVAL);
	assert_int_equal(reg_raw(&s, addr, UAPI_SHMEM_BUF_SIZE_MAX + PAGE, 0, 0), -EINVAL);
	assert_int_equal(abi_command(&s, UBLK_U_CMD_REG_BUF, s.device, 8, 24, 0), -EFAULT);
	assert_int_equal(reg_raw(&s, 0, PAGE, 0, 0), -EFAULT);
	assert_int_equal(abi_command(&s, UBLK_U_CMD_REG_BUF, s.device + 1000, addr, 24, 0),
			 -ENODEV);
	abi_del(&s);
	munmap(p, 4 * PAGE);
	assert_nothing_pinned();
}

static void reg_refuses_memory_it_cannot_pin(void **state)
{
	struct abi_server s;
	char *p = shared_pages(4);
	char name[256];
	const char *disk = getenv("ABI_DISK"); /* a folder of a disk file system */
	char *file;
	int fd;

	(void)state;
	add_zc(&s);
	/* half of it is not accessible */
	mprotect(p + 2 * PAGE, 2 * PAGE, PROT_NONE);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), -EFAULT);
	/* read-only memory needs the flag */
	mprotect(p, 2 * PAGE, PROT_READ);
	assert_int_equal(abi_reg(&s, p, 2 * PAGE, 0), -EFAULT);
	assert_int_equal(abi_reg(&s, p, 2 * PAGE, UAPI_SHMEM_BUF_READ_ONLY), 0);
	assert_int_equal(abi_unreg(&s, 0), 0);
	/* a shared mapping of a file of a disk file system may not stay pinned */
	assert_non_null(disk);
	snprintf(name, sizeof(name), "%s/abi-test-XXXXXX", disk);
	fd = mkstemp(name);
	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(ftruncate(fd, PAGE), 0);
	file = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(file != MAP_FAILED);
	assert_int_equal(abi_reg(&s, file, PAGE, 0), -EFAULT);
	abi_del(&s);
	munmap(file, PAGE);
	close(fd);
	munmap(p, 4 * PAGE);
	assert_nothing_pinned();
}

static void overlapping_memory_is_refused_and_nothing_is_lost(void **state)
{
	struct abi_server s;
	char *p = shared_pages(8);
	char *again;

	(void)state;
	add_zc(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), -EEXIST);
	assert_int_equal(abi_reg(&s, p + 3 * PAGE, 2 * PAGE, 0), -EEXIST);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0); /* the lowest free index */
	/* the same page twice in one buffer: a second mapping right behind it */
	assert_int_equal(abi_unreg(&s, 0), 0);
	again = mremap(p, 0, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 6 * PAGE);
	assert_true(again == p + 6 * PAGE);
	assert_int_equal(abi_unreg(&s, 1), 0);
	assert_int_equal(abi_reg(&s, p, 8 * PAGE, 0), -EEXIST);
	assert_int_equal(abi_reg(&s, p, 6 * PAGE, 0), 0);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

static void unreg_refuses_unknown_indices(void **state)
{
	struct abi_server s;

	(void)state;
	add_zc(&s);
	assert_int_equal(abi_unreg(&s, 0), -ENOENT);
	assert_int_equal(abi_unreg(&s, 65535), -ENOENT);
	assert_int_equal(abi_unreg(&s, 65536), -EINVAL);
	assert_int_equal(abi_unreg(&s, (uint64_t)-1), -EINVAL);
	print_message("UNREG_BUF of 1 << 32: %s\n",
		      abi_unreg(&s, 1ULL << 32) == -EINVAL ? "EINVAL" : "taken as 0 (stock)");
	if (is_ours())
		assert_int_equal(abi_unreg(&s, 1ULL << 32), -EINVAL);
	abi_del(&s);
}

static void rings_without_long_entries_are_refused(void **state)
{
	struct abi_server s;
	struct io_uring ring;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;

	(void)state;
	add_zc(&s);
	assert_int_equal(io_uring_queue_init(2, &ring, 0), 0);
	for (int i = 0; i < 2; i++) {
		sqe = io_uring_get_sqe(&ring);
		if (!sqe)
			fail_msg("no ring entry");
		else
			*sqe = (struct io_uring_sqe){ 0 };
		sqe->opcode = IORING_OP_URING_CMD;
		sqe->fd = s.ctrl.fd;
		sqe->off = i ? UBLK_U_CMD_UNREG_BUF : UBLK_U_CMD_REG_BUF;
		assert_int_equal(io_uring_submit(&ring), 1);
		assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
		assert_int_equal(cqe->res, -EINVAL);
		io_uring_cqe_seen(&ring, cqe);
	}
	io_uring_queue_exit(&ring);
	abi_del(&s);
}

static void devices_without_the_flag_refuse(void **state)
{
	struct abi_server s;
	char *p = shared_pages(1);

	(void)state;
	assert_int_equal(abi_add(&s, UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE), 0);
	assert_int_equal(abi_reg(&s, p, PAGE, 0), -EOPNOTSUPP);
	assert_int_equal(abi_unreg(&s, 0), -EOPNOTSUPP);
	assert_int_equal(abi_unreg(&s, 1 << 20), -EOPNOTSUPP);
	abi_del(&s);
	munmap(p, PAGE);
}

static void need_get_data_is_not_combined(void **state)
{
	struct abi_server s;
	int ret = abi_add(&s, UBLK_F_NEED_GET_DATA | UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_SHMEM_ZC);

	(void)state;
	print_message("NEED_GET_DATA with the feature: %s\n", ret ? "refused" : "accepted (stock)");
	if (is_ours())
		assert_int_equal(ret, -EINVAL);
	if (!ret)
		abi_del(&s);
}

static void unprivileged_callers_are_refused(void **state)
{
	struct abi_server s;
	char *p = shared_pages(1);
	pid_t pid;
	int status;

	(void)state;
	add_zc(&s);
	pid = fork();
	if (pid == 0) {
		if (setresuid(65534, 65534, 65534))
			_exit(1);
		_exit(abi_reg(&s, p, PAGE, 0) == -EPERM && abi_unreg(&s, 0) == -EPERM ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	abi_del(&s);
	munmap(p, PAGE);
}

#define BATCH 32U

/* Register @nr single pages, many at a time; all must succeed. */
static void register_pages(struct abi_server *s, char *p, unsigned int nr)
{
	struct uapi_shmem_buf_reg regs[BATCH];

	for (unsigned int done = 0; done < nr; done += BATCH) {
		unsigned int waiting = 0;

		for (; waiting < BATCH && done + waiting < nr; waiting++) {
			regs[waiting] = (struct uapi_shmem_buf_reg){
				.addr = (uintptr_t)(p + (done + waiting) * PAGE),
				.len = PAGE,
			};
			assert_int_equal(ctrl_reg_buf(&s->ctrl, s->device, &regs[waiting], regs),
					 0);
		}
		while (waiting) {
			struct io_uring_cqe *cqe;
			void *cookie;
			int res;

			assert_int_equal(io_uring_wait_cqe(&s->ctrl.ring, &cqe), 0);
			assert_int_equal(ctrl_collect(&s->ctrl, &cookie, &res), 1);
			assert_true(res >= 0);
			waiting--;
		}
	}
}

/*
 * Where a registration takes milliseconds, in an emulated kernel with checkers, ABI_BUFFERS says
 * how many are enough; then the indices do not run out.
 */
static void indices_run_out(void **state)
{
	const char *enough = getenv("ABI_BUFFERS");
	const unsigned int all = UAPI_SHMEM_BUF_INDEX_MAX + 1;
	const unsigned int nr = enough ? (unsigned int)atoi(enough) : all;
	struct abi_server s;
	char *p = shared_pages(nr + 1);

	(void)state;
	assert_true(nr > 711 && nr <= all);
	add_zc(&s);
	register_pages(&s, p, nr);
	if (nr == all)
		assert_int_equal(abi_reg(&s, p + nr * PAGE, PAGE, 0), -ENOSPC);
	else
		print_message("%u buffers, not %u\n", nr, all);
	assert_int_equal(abi_unreg(&s, 711), 0);
	assert_int_equal(abi_reg(&s, p + nr * PAGE, PAGE, 0), 711);
	abi_del(&s);
	munmap(p, (nr + 1) * PAGE);
	assert_nothing_pinned();
}

/* ---- matching ---- */

static void both_ends_of_a_buffer_match_and_no_more(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(66); /* page 0 and page 65 stay unregistered */
	uint8_t *buf = p + PAGE;

	(void)state;
	add_zc(&s);
	abi_start(&s);
	assert_false(read_matches(&s, buf, PAGE));
	assert_int_equal(abi_reg(&s, buf, 64 * PAGE, 0), 0);
	assert_true(read_matches(&s, buf, PAGE));
	assert_last(&s, 0, 0);
	assert_true(read_matches(&s, buf + 63 * PAGE, PAGE));
	assert_last(&s, 0, 63 * PAGE);
	assert_true(read_matches(&s, buf, 64 * PAGE));
	assert_last(&s, 0, 0);
	assert_true(write_matches(&s, buf + 5 * PAGE, 7 * PAGE));
	assert_last(&s, 0, 5 * PAGE);
	/* not page-aligned */
	assert_true(read_matches(&s, buf + 512, 1024));
	assert_last(&s, 0, 512);
	/* one page beyond either end */
	assert_false(read_matches(&s, buf - PAGE, 2 * PAGE));
	assert_false(read_matches(&s, buf + 63 * PAGE, 2 * PAGE));
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_false(read_matches(&s, buf, PAGE));
	abi_del(&s);
	munmap(p, 66 * PAGE);
	assert_nothing_pinned();
}

static void scattered_pages_match_as_one_buffer(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(256);

	(void)state;
	/* Touched back to front, no page follows its neighbour physically. */
	for (int i = 255; i >= 0; i--)
		p[(size_t)i * PAGE] = 1;
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 256 * PAGE, 0), 0);
	assert_true(read_matches(&s, p + 3 * PAGE, 64 * PAGE));
	assert_last(&s, 0, 3 * PAGE);
	assert_true(write_matches(&s, p + 200 * PAGE + 512, 32 * PAGE));
	assert_last(&s, 0, 200 * PAGE + 512);
	abi_del(&s);
	munmap(p, 256 * PAGE);
	assert_nothing_pinned();
}

static void requests_over_two_buffers_are_copied(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);

	(void)state;
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	assert_true(read_matches(&s, p + 4 * PAGE, PAGE));
	assert_last(&s, 1, 0);
	assert_false(read_matches(&s, p + 3 * PAGE, 2 * PAGE));
	abi_del(&s);
	munmap(p, 8 * PAGE);
}

static void read_only_buffers_serve_writes_only(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(4);

	(void)state;
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, UAPI_SHMEM_BUF_READ_ONLY), 0);
	assert_true(write_matches(&s, p, PAGE));
	assert_false(read_matches(&s, p, PAGE));
	abi_del(&s);
	munmap(p, 4 * PAGE);
}

static void short_completions(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(4);
	unsigned long long before;

	(void)state;
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	s.halve = true;
	before = s.nr_matched;
	assert_int_equal(pwrite(s.disk_fd, p, 4 * PAGE, ABI_TEST_OFFSET), 4 * PAGE);
	print_message("a short completion: %s\n", s.nr_matched - before > 1
							  ? "the rest is issued again"
							  : "taken as success (stock)");
	if (is_ours())
		assert_true(s.nr_matched - before > 1);
	abi_del(&s);
	munmap(p, 4 * PAGE);
}

#define IN_FULL (-1)

static atomic_int first_result; /* of the next request only */

static int complete_short_once(struct abi_server *s, const struct ublksrv_io_desc *iod,
			       uint16_t tag)
{
	int bytes = (int)(iod->nr_sectors << 9);
	int result = atomic_exchange(&first_result, IN_FULL);

	(void)tag;
	s->last_op_flags = iod->op_flags;
	s->last_addr = iod->addr;
	s->last_bytes = (uint32_t)bytes;
	return result == IN_FULL ? bytes : result;
}

/* A read or a write of @len bytes at @p, whose first completion says @first. */
static ssize_t io_short_once(struct abi_server *s, void *p, size_t len, bool is_write, int first)
{
	ssize_t n;

	first_result = first;
	n = is_write ? pwrite(s->disk_fd, p, len, ABI_TEST_OFFSET)
		     : pread(s->disk_fd, p, len, ABI_TEST_OFFSET);
	assert_true(s->last_op_flags & UAPI_IO_F_SHMEM_ZC);
	return n < 0 ? -errno : n;
}

/* Else the server would be asked for parts of a block, or for the same again without end. */
static void short_completions_end_whole_blocks(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(4);

	(void)state;
	if (!is_ours()) {
		print_message("the stock driver takes any completion as success\n");
		skip();
	}
	add_zc(&s);
	s.handler = complete_short_once;
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	for (int is_write = 0; is_write < 2; is_write++) {
		assert_int_equal(io_short_once(&s, p, 2048, is_write, 0), -EIO);
		assert_int_equal(io_short_once(&s, p, 2048, is_write, 100), -EIO);
		assert_int_equal(io_short_once(&s, p, 2048, is_write, 512), 2048);
		assert_int_equal(s.last_bytes, 1536);
		assert_last(&s, 0, 512);
		assert_int_equal(io_short_once(&s, p, 2048, is_write, 512 + 100), 2048);
		assert_int_equal(s.last_bytes, 1536);
		assert_last(&s, 0, 512);
	}
	abi_del(&s);
	munmap(p, 4 * PAGE);
}

static void features_say_so(void **state)
{
	struct ctrl ctrl;
	uint64_t features;

	(void)state;
	assert_int_equal(ctrl_open(&ctrl), 0);
	assert_int_equal(ctrl_get_features(&ctrl, &features), 0);
	assert_true(features & UBLK_F_SHMEM_ZC);
	ctrl_close(&ctrl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features_say_so),
		cmocka_unit_test(reg_refuses_what_is_malformed),
		cmocka_unit_test(reg_refuses_memory_it_cannot_pin),
		cmocka_unit_test(overlapping_memory_is_refused_and_nothing_is_lost),
		cmocka_unit_test(unreg_refuses_unknown_indices),
		cmocka_unit_test(rings_without_long_entries_are_refused),
		cmocka_unit_test(devices_without_the_flag_refuse),
		cmocka_unit_test(need_get_data_is_not_combined),
		cmocka_unit_test(unprivileged_callers_are_refused),
		cmocka_unit_test(indices_run_out),
		cmocka_unit_test(both_ends_of_a_buffer_match_and_no_more),
		cmocka_unit_test(scattered_pages_match_as_one_buffer),
		cmocka_unit_test(requests_over_two_buffers_are_copied),
		cmocka_unit_test(read_only_buffers_serve_writes_only),
		cmocka_unit_test(short_completions),
		cmocka_unit_test(short_completions_end_whole_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
