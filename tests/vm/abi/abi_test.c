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
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_server.h"

#define PAGE 4096UL
#define ZC_FLAGS (UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_SHMEM_ZC)

/* Stock 6.12 lacks the feature, so a 6.12 that has it is ours. */
static bool is_ours(void)
{
	struct utsname name;

	uname(&name);
	return strncmp(name.release, "6.12.", 5) == 0;
}

static void *shared_pages(size_t nr)
{
	void *p = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* The counters are per processor and folded about once a second, or now. */
static void fold_vmstat(void)
{
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "1", 1), 1);
	close(fd);
}

static long long pinned(void)
{
	FILE *f;
	long long n, balance = 0;
	char name[64];

	fold_vmstat();
	f = fopen("/proc/vmstat", "r");
	assert_non_null(f);
	while (fscanf(f, "%63s %lld", name, &n) == 2) {
		if (strcmp(name, "nr_foll_pin_acquired") == 0)
			balance += n;
		if (strcmp(name, "nr_foll_pin_released") == 0)
			balance -= n;
	}
	fclose(f);
	return balance;
}

static void assert_nothing_pinned(void)
{
	for (int i = 0; i < 100 && pinned(); i++)
		usleep(50000);
	assert_int_equal(pinned(), 0);
}

static void add_zc(struct abi_server *s)
{
	assert_int_equal(abi_add(s, ZC_FLAGS), 0);
	assert_true(s->flags & UBLK_F_SHMEM_ZC);
}

/* Read into @buf; was it left as it was (matched), or filled (copied)? */
static bool read_matches(struct abi_server *s, uint8_t *buf, size_t len)
{
	size_t kept = 0, filled = 0;

	memset(buf, 0x11, len);
	assert_int_equal(pread(s->disk_fd, buf, len, ABI_TEST_OFFSET), len);
	for (size_t i = 0; i < len; i++) {
		kept += buf[i] == 0x11;
		filled += buf[i] == ABI_FILL;
	}
	assert_true(kept == len || filled == len);
	return kept == len;
}

static bool write_matches(struct abi_server *s, const uint8_t *buf, size_t len)
{
	assert_int_equal(pwrite(s->disk_fd, buf, len, ABI_TEST_OFFSET), len);
	return (s->last_op_flags & UAPI_IO_F_SHMEM_ZC) != 0;
}

static void assert_last(const struct abi_server *s, int index, uint32_t offset)
{
	assert_int_equal(uapi_shmem_index(s->last_addr), index);
	assert_int_equal(uapi_shmem_offset(s->last_addr), offset);
	assert_int_equal(s->last_addr >> 48, 0);
}

/* ---- errors ---- */

static int reg_raw(struct abi_server *s, uint64_t addr, uint64_t len, uint32_t flags,
		   uint32_t reserved)
{
	struct uapi_shmem_buf_reg reg = { addr, len, flags, reserved };

	return abi_command(s, UBLK_U_CMD_REG_BUF, s->device, (uintptr_t)&reg, sizeof(reg), 0);
}

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

static void indices_run_out(void **state)
{
	const unsigned int nr = UAPI_SHMEM_BUF_INDEX_MAX + 1;
	struct abi_server s;
	char *p = shared_pages(nr + 1);

	(void)state;
	add_zc(&s);
	register_pages(&s, p, nr);
	assert_int_equal(abi_reg(&s, p + nr * PAGE, PAGE, 0), -ENOSPC);
	assert_int_equal(abi_unreg(&s, 4711), 0);
	assert_int_equal(abi_reg(&s, p + nr * PAGE, PAGE, 0), 4711);
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

/* ---- registering while there is I/O ---- */

struct unreg_call {
	struct abi_server *s;
	unsigned int index;
	atomic_int res; /* 1: not back yet */
};

static void *unreg_thread(void *arg)
{
	struct unreg_call *call = arg;

	call->res = abi_unreg(call->s, call->index);
	return NULL;
}

struct read_call {
	struct abi_server *s;
	uint8_t *buf;
	long res;
};

static void *read_thread(void *arg)
{
	struct read_call *call = arg;

	call->res = pread(call->s->disk_fd, call->buf, PAGE, ABI_TEST_OFFSET);
	return NULL;
}

static void settle(const struct unreg_call *call)
{
	for (int i = 0; i < 100 && call->res == 1; i++)
		usleep(20000);
}

static void unregistering_waits_for_requests_in_the_buffer(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);
	struct unreg_call used = { .s = &s, .index = 0, .res = 1 };
	struct unreg_call other = { .s = &s, .index = 1, .res = 1 };
	struct read_call read = { .s = &s, .buf = p };
	pthread_t reader, first, second;

	(void)state;
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	memset(p, 0x22, PAGE);
	s.hold = true;
	pthread_create(&reader, NULL, read_thread, &read);
	while (!s.nr_held)
		usleep(1000);
	pthread_create(&second, NULL, unreg_thread, &other);
	settle(&other);
	print_message("unregistering another buffer %s for this one's request\n",
		      other.res == 1 ? "waits (stock)" : "does not wait");
	if (is_ours()) {
		assert_int_equal(other.res, 0);
		pthread_create(&first, NULL, unreg_thread, &used);
		usleep(300000);
		assert_int_equal(used.res, 1); /* the request is still in it */
		/* registering goes on as well */
		assert_int_equal(abi_reg(&s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	}
	s.hold = false;
	pthread_join(reader, NULL);
	pthread_join(second, NULL);
	assert_int_equal(other.res, 0);
	if (!is_ours())
		pthread_create(&first, NULL, unreg_thread, &used);
	pthread_join(first, NULL);
	assert_int_equal(used.res, 0);
	assert_int_equal(read.res, PAGE);
	assert_int_equal(p[0], 0x22);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

#define STRESS_PAGES 64U
#define STRESS_ROUNDS 150

struct stress {
	struct abi_server *s;
	uint8_t *pages;
	atomic_bool *stop;
	unsigned int rounds;
	int error;
};

static void *stress_register(void *arg)
{
	struct stress *st = arg;

	while (st->rounds-- && !st->error) {
		int index = abi_reg(st->s, st->pages, STRESS_PAGES * PAGE, 0);

		if (index < 0)
			st->error = index;
		else
			st->error = abi_unreg(st->s, (unsigned int)index);
	}
	return NULL;
}

static void *stress_read(void *arg)
{
	struct stress *st = arg;
	unsigned int at = 0;

	while (!*st->stop && !st->error) {
		at = (at * 5 + 1) % (STRESS_PAGES - 4);
		if (pread(st->s->disk_fd, st->pages + at * PAGE, 4 * PAGE, ABI_TEST_OFFSET) !=
		    4 * PAGE)
			st->error = -errno;
	}
	return NULL;
}

static void registering_under_load_loses_nothing(void **state)
{
	struct abi_server s;
	atomic_bool stop = false;
	struct stress st[4];
	pthread_t threads[4];

	(void)state;
	add_zc(&s);
	s.pages_per_buffer = STRESS_PAGES;
	abi_start(&s);
	for (int i = 0; i < 4; i++) {
		/* registrar 0 works on reader 2's memory, 1 on 3's */
		st[i] = (struct stress){ .s = &s,
					 .pages = i < 2 ? shared_pages(STRESS_PAGES)
							: st[i - 2].pages,
					 .stop = &stop,
					 .rounds = STRESS_ROUNDS };
	}
	for (int i = 3; i >= 0; i--)
		pthread_create(&threads[i], NULL, i < 2 ? stress_register : stress_read, &st[i]);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	stop = true;
	pthread_join(threads[2], NULL);
	pthread_join(threads[3], NULL);
	for (int i = 0; i < 4; i++)
		assert_int_equal(st[i].error, 0);
	print_message("%llu requests matched, %llu were copied\n", s.nr_matched, s.nr_copied);
	assert_true(s.nr_matched > 0);
	assert_true(s.nr_copied > 0);
	assert_int_equal(s.bad_index, 0);
	abi_del(&s);
	for (int i = 0; i < 2; i++)
		munmap(st[i].pages, STRESS_PAGES * PAGE);
	assert_nothing_pinned();
}

static void deleting_a_device_releases_its_buffers(void **state)
{
	struct abi_server s;
	char *p = shared_pages(300);

	(void)state;
	add_zc(&s);
	abi_start(&s);
	for (int i = 0; i < 3; i++)
		assert_int_equal(abi_reg(&s, p + i * 100 * PAGE, 100 * PAGE, 0), i);
	assert_true(pinned() >= 300);
	abi_del(&s);
	munmap(p, 300 * PAGE);
	assert_nothing_pinned();
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
		cmocka_unit_test(unregistering_waits_for_requests_in_the_buffer),
		cmocka_unit_test(registering_under_load_loses_nothing),
		cmocka_unit_test(deleting_a_device_releases_its_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
