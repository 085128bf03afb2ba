/* SPDX-License-Identifier: MIT */
/*
 * extensions_test.c - what kernel-patch/ adds to the ABI: the list of a device's buffers, and
 * lists of segments in place of copies.  Skipped on a driver that does not offer them.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define LIST_FLAGS (ZC_FLAGS | UAPI_F_SHMEM_LIST)
#define SEGS_FLAGS (ZC_FLAGS | UAPI_F_SHMEM_SEGS)

static void requires_feature(uint64_t bit)
{
	struct ctrl ctrl;
	uint64_t features;

	assert_int_equal(ctrl_open(&ctrl), 0);
	assert_int_equal(ctrl_get_features(&ctrl, &features), 0);
	ctrl_close(&ctrl);
	if (is_ours())
		assert_true(features & bit);
	if (features & bit)
		return;
	print_message("the driver does not offer it (stock)\n");
	skip();
}

static void add_with(struct abi_server *s, uint64_t flags)
{
	assert_int_equal(abi_add(s, flags), 0);
	assert_true((s->flags & flags) == flags);
}

/* ---- the list of buffers ---- */

static int list(struct abi_server *s, uint64_t from, struct uapi_shmem_buf_info *infos, size_t nr)
{
	return abi_command(s, UAPI_CMD_LIST_BUFS, s->device, (uintptr_t)infos,
			   (uint16_t)(nr * sizeof(*infos)), from);
}

static void extensions_must_be_asked_for(void **state)
{
	struct abi_server s;
	struct uapi_shmem_buf_info info;

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_zc(&s);
	assert_int_equal(s.flags & (UAPI_F_SHMEM_LIST | UAPI_F_SHMEM_SEGS), 0);
	assert_int_equal(list(&s, 0, &info, 1), -EOPNOTSUPP);
	abi_del(&s);
	/* not without what they extend */
	assert_int_equal(abi_add(&s, LIST_FLAGS & ~UBLK_F_SHMEM_ZC), -EINVAL);
	assert_int_equal(abi_add(&s, SEGS_FLAGS & ~UBLK_F_SHMEM_ZC), -EINVAL);
	assert_int_equal(abi_add(&s, SEGS_FLAGS & ~UBLK_F_USER_COPY), -EINVAL);
}

static void buffers_are_listed_in_order(void **state)
{
	struct abi_server s;
	struct uapi_shmem_buf_info infos[8];
	char *p = shared_pages(16);

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_with(&s, LIST_FLAGS);
	assert_int_equal(list(&s, 0, infos, 8), 0);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, 2 * PAGE, UAPI_SHMEM_BUF_READ_ONLY), 1);
	assert_int_equal(abi_reg(&s, p + 8 * PAGE, 8 * PAGE, 0), 2);
	assert_int_equal(list(&s, 0, infos, 8), 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(infos[i].index, i);
		assert_int_equal(infos[i].len, (i == 0 ? 4 : i == 1 ? 2 : 8) * PAGE);
		assert_int_equal(infos[i].flags, i == 1 ? UAPI_SHMEM_BUF_READ_ONLY : 0);
		assert_in_range(infos[i].nr_runs, 1, infos[i].len / PAGE);
		assert_int_equal(infos[i].reserved, 0);
	}
	/* a part of it: the array decides how many, the caller where to go on */
	assert_int_equal(list(&s, 1, infos, 1), 1);
	assert_int_equal(infos[0].index, 1);
	assert_int_equal(list(&s, 2, infos, 1), 1);
	assert_int_equal(infos[0].index, 2);
	assert_int_equal(list(&s, 3, infos, 1), 0);
	assert_int_equal(abi_unreg(&s, 1), 0);
	assert_int_equal(list(&s, 1, infos, 8), 1);
	assert_int_equal(infos[0].index, 2);
	abi_del(&s);
	munmap(p, 16 * PAGE);
	assert_nothing_pinned();
}

static void list_refuses_what_is_malformed(void **state)
{
	struct abi_server s;
	struct uapi_shmem_buf_info info;
	char *p = shared_pages(1);

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_with(&s, LIST_FLAGS);
	assert_int_equal(abi_reg(&s, p, PAGE, 0), 0);
	assert_int_equal(list(&s, UAPI_SHMEM_BUF_INDEX_MAX, &info, 1), 0);
	assert_int_equal(list(&s, UAPI_SHMEM_BUF_INDEX_MAX + 1, &info, 1), -EINVAL);
	assert_int_equal(list(&s, 1ULL << 32, &info, 1), -EINVAL);
	assert_int_equal(list(&s, 0, &info, 0), -EINVAL);
	assert_int_equal(abi_command(&s, UAPI_CMD_LIST_BUFS, s.device, (uintptr_t)&info,
				     sizeof(info) - 1, 0),
			 -EINVAL);
	assert_int_equal(list(&s, 0, (void *)8, 1), -EFAULT);
	assert_int_equal(abi_command(&s, UAPI_CMD_LIST_BUFS, s.device + 1000, (uintptr_t)&info,
				     sizeof(info), 0),
			 -ENODEV);
	abi_del(&s);
	munmap(p, PAGE);
}

/* A process that waits for its UNREG_BUF can be killed, whoever holds the request. */
static void a_killed_unregistration_is_listed_as_dying(void **state)
{
	struct abi_server s;
	struct uapi_shmem_buf_info info;
	uint8_t *p = shared_pages(4);
	struct read_call read = { .s = &s, .buf = p, .len = PAGE };
	pthread_t reader;
	int status = -1;
	pid_t pid;

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_with(&s, LIST_FLAGS);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	s.hold = true;
	pthread_create(&reader, NULL, read_thread, &read);
	while (!s.nr_held)
		usleep(1000);
	pid = fork();
	if (pid == 0)
		_exit(abi_unreg(&s, 0) != 0);
	do {
		usleep(10000);
		assert_int_equal(list(&s, 0, &info, 1), 1);
	} while (!(info.flags & UAPI_SHMEM_BUF_DYING));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	/* still taken, and still pinned: the request is in it */
	assert_int_equal(s.nr_held, 1);
	assert_int_equal(list(&s, 0, &info, 1), 1);
	assert_true(pinned() >= 4);
	/* its memory can be registered again */
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 1);
	s.hold = false;
	pthread_join(reader, NULL);
	assert_int_equal(read.res, PAGE);
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_int_equal(list(&s, 0, &info, 1), 1);
	assert_int_equal(info.index, 1);
	abi_del(&s);
	munmap(p, 4 * PAGE);
	assert_nothing_pinned();
}

/* ---- servers that die ---- */

/* Its server is a process. The state is shared with it. */
static struct abi_server *start_mortal(uint64_t flags)
{
	struct abi_server *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(s != MAP_FAILED);
	add_with(s, flags);
	abi_start_process(s);
	return s;
}

static void bury(struct abi_server *s)
{
	abi_del(s);
	munmap(s, sizeof(*s));
}

static void buffers_are_listed_between_two_servers(void **state)
{
	struct abi_server *s;
	struct uapi_shmem_buf_info infos[4];
	uint8_t *p = shared_pages(8);

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	s = start_mortal(LIST_FLAGS | UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE);
	assert_int_equal(abi_reg(s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	abi_kill_process(s);
	assert_int_equal(list(s, 0, infos, 4), 2);
	abi_begin_recovery(s);
	assert_int_equal(list(s, 0, infos, 4), 2);
	assert_int_equal(abi_unreg(s, 0), 0);
	assert_int_equal(list(s, 0, infos, 4), 1);
	assert_int_equal(infos[0].index, 1);
	abi_end_recovery(s);
	assert_int_equal(list(s, 0, infos, 4), 1);
	assert_true(read_matches(s, p + 4 * PAGE, PAGE));
	assert_false(read_matches(s, p, PAGE));
	bury(s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

/* ---- lists of segments ---- */

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
	/* the server names no memory for lists */
	s.no_lists = true;
	iov[1].iov_base = p;
	for (unsigned int i = 0; i <= ABI_DEPTH; i++) /* each tag has one that it got before */
		read_vector(&s, iov, 2);
	assert_int_equal(read_vector(&s, iov, 2), COPIED);
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

static void allow_merges(const struct abi_server *s)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/nomerges", s->device);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "0", 1), 1);
	close(fd);
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
	allow_merges(&s);
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
	bury(s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
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
		cmocka_unit_test(extensions_must_be_asked_for),
		cmocka_unit_test(buffers_are_listed_in_order),
		cmocka_unit_test(list_refuses_what_is_malformed),
		cmocka_unit_test(a_killed_unregistration_is_listed_as_dying),
		cmocka_unit_test(buffers_are_listed_between_two_servers),
		cmocka_unit_test(requests_over_two_buffers_are_listed),
		cmocka_unit_test(disorder_in_one_buffer_is_listed),
		cmocka_unit_test(read_only_memory_is_listed_for_writes_only),
		cmocka_unit_test(lists_have_a_longest_length),
		cmocka_unit_test(the_rest_of_a_short_list_is_issued_again),
		cmocka_unit_test(unregistering_waits_for_lists),
		cmocka_unit_test(lists_of_a_dead_server_hold_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
