/* SPDX-License-Identifier: MIT */
/*
 * command_race_test.c - the driver believes a control command only once.
 *
 * A submission entry is memory that its submitter can write to at any time: while the driver looks
 * at the command, and, with more commands in flight than the ring has entries, before it does.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "users.h"

#define NR_BUFFERS 300U /* to be listed */
#define NR_MANY 1000U
#define LIST_BYTES                                                                                 \
	(UINT16_MAX / sizeof(struct uapi_shmem_buf_info) * sizeof(struct uapi_shmem_buf_info))

/* ---- a ring of one entry, whose command a thread rewrites all the time ---- */

struct rewriting {
	struct io_uring ring;
	int fd;
	struct uapi_ctrl_cmd as[2]; /* what it is in turn; they differ in one word */
	pthread_t thread;
	atomic_uint nr_rewritten;
	atomic_bool stop;
};

static struct io_uring_sqe *only_entry(struct rewriting *r)
{
	return r->ring.sq.sqes;
}

static void write_command(struct io_uring_sqe *sqe, const struct uapi_ctrl_cmd *cmd)
{
	volatile uint64_t *to = (volatile uint64_t *)(void *)&sqe->addr3;
	uint64_t words[sizeof(*cmd) / 8];

	memcpy(words, cmd, sizeof(words));
	for (size_t i = 0; i < sizeof(words) / 8; i++)
		to[i] = words[i];
}

static void *rewrite(void *arg)
{
	struct rewriting *r = arg;

	for (unsigned int i = 0; !r->stop; i++) {
		write_command(only_entry(r), &r->as[i % 2]);
		r->nr_rewritten = i;
	}
	return NULL;
}

/* 0, or the number of a line: in a user's process too. */
static int start_rewriting(struct rewriting *r)
{
	*r = (struct rewriting){ .fd = r->fd, .as = { r->as[0], r->as[1] } };
	EXPECT(io_uring_queue_init(1, &r->ring, IORING_SETUP_SQE128), 0);
	write_command(only_entry(r), &r->as[0]);
	EXPECT(pthread_create(&r->thread, NULL, rewrite, r), 0);
	return 0;
}

static void stop_rewriting(struct rewriting *r)
{
	r->stop = true;
	pthread_join(r->thread, NULL);
	io_uring_queue_exit(&r->ring);
}

/* The result, or INT_MIN: it never comes, because a worker died over it. */
static int issue_rewritten(struct rewriting *r, unsigned int cmd_op)
{
	struct __kernel_timespec a_minute = { .tv_sec = 60 };
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);
	struct io_uring_cqe *cqe;
	unsigned int seen;
	int res;

	if (!sqe)
		abort(); /* it is free again once its command was issued */
	/* the command itself is in the 32 bytes from addr3 on */
	memset(sqe, 0, offsetof(struct io_uring_sqe, addr3));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = r->fd;
	sqe->off = cmd_op;
	seen = r->nr_rewritten;
	while (r->nr_rewritten - seen < 100) /* it runs, now, elsewhere */
		sched_yield(); /* or here, where threads take turns */
	io_uring_submit(&r->ring);
	do
		res = io_uring_wait_cqe_timeout(&r->ring, &cqe, &a_minute);
	while (res == -EINTR);
	if (res)
		return INT32_MIN;
	res = cqe->res;
	io_uring_cqe_seen(&r->ring, cqe);
	return res;
}

/* ---- LIST: room for one, or for all? ---- */

static void register_pages(struct abi_server *s, uint8_t *p, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		assert_int_equal(abi_reg(s, p + i * PAGE, PAGE, 0), i);
}

static int list_whichever(struct rewriting *r, unsigned int device, int nr_all)
{
	static struct {
		char path[24];
		uint8_t infos[LIST_BYTES];
	} array;
	size_t path = r->as[0].dev_path_len;
	int res = 1, nr_long = 0, tries;
	time_t end;

	for (unsigned int i = 0; i < 2; i++) {
		r->as[i].dev_id = device;
		r->as[i].queue_id = UINT16_MAX;
		r->as[i].addr = (uintptr_t)(path ? array.path : (char *)array.infos);
	}
	snprintf(array.path, sizeof(array.path), "/dev/ublkc%u", device);
	r->as[0].len = (uint16_t)(path + sizeof(struct uapi_shmem_buf_info));
	r->as[1].len = (uint16_t)(path + 2000 * sizeof(struct uapi_shmem_buf_info));
	EXPECT(start_rewriting(r), 0);
	/* a kernel with checkers may take a second for each */
	end = time(NULL) + 30;
	for (tries = 0; tries < 1000 && (tries < 20 || time(NULL) < end); tries++) {
		res = issue_rewritten(r, UAPI_CMD_LIST_BUFS);
		if (res != 1 && res != nr_all)
			break;
		nr_long += res == nr_all;
	}
	stop_rewriting(r);
	EXPECT(res == 1 || res == nr_all, true);
	EXPECT(nr_long > 0 && nr_long < tries, true); /* or nothing was tried */
	return 0;
}

static void a_list_is_as_long_as_its_array(void **state)
{
	struct rewriting r = { 0 };
	struct abi_server s;
	uint8_t *p = shared_pages(NR_BUFFERS);

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_with(&s, ZC_FLAGS | UAPI_F_SHMEM_LIST);
	register_pages(&s, p, NR_BUFFERS);
	r.fd = s.ctrl.fd;
	assert_int_equal(list_whichever(&r, s.device, NR_BUFFERS), 0);
	abi_del(&s);
	munmap(p, NR_BUFFERS * PAGE);
	assert_nothing_pinned();
}

static int list_whichever_as_user(struct both *b)
{
	struct rewriting r = { .fd = b->s.ctrl.fd };

	for (unsigned int i = 0; i < LIMIT; i++)
		EXPECT(abi_reg(&b->s, b->pages + i * PAGE, PAGE, 0), (int)i);
	r.as[0].dev_path_len = r.as[1].dev_path_len = 24;
	return list_whichever(&r, b->s.device, LIMIT);
}

static void a_users_list_is_as_long_as_its_array(void **state)
{
	struct both *b;

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	b = add_users_device();
	as_user(USER, list_whichever_as_user, b);
	delete_users_device(b);
}

/* ---- REG: the driver steps over the path, and nobody steps back ---- */

static int register_as_user(struct both *b)
{
	struct rewriting r = { .fd = b->s.ctrl.fd };
	struct {
		char path[24];
		struct uapi_shmem_buf_reg reg;
	} arg = { .reg = { .addr = (uintptr_t)b->pages, .len = LIMIT * PAGE } };

	snprintf(arg.path, sizeof(arg.path), "/dev/ublkc%u", b->s.device);
	r.as[0] = (struct uapi_ctrl_cmd){
		.dev_id = b->s.device,
		.queue_id = UINT16_MAX,
		.addr = (uintptr_t)&arg,
		.len = sizeof(arg),
		.dev_path_len = sizeof(arg.path),
	};
	r.as[1] = r.as[0];
	EXPECT(start_rewriting(&r), 0);
	for (int i = 0; i < 100; i++) {
		EXPECT(issue_rewritten(&r, UBLK_U_CMD_REG_BUF), 0);
		EXPECT(abi_unreg(&b->s, 0), 0);
	}
	stop_rewriting(&r);
	return 0;
}

static void a_users_buffer_is_what_the_command_said(void **state)
{
	struct both *b = add_users_device();

	(void)state;
	as_user(USER, register_as_user, b);
	delete_users_device(b);
}

/* One of two buffers' descriptions, and never a mixture. */
static void a_buffer_is_what_the_command_said(void **state)
{
	struct abi_server s;
	struct rewriting r = { 0 };
	uint8_t *p = shared_pages(8);
	struct uapi_shmem_buf_reg regs[2] = {
		{ .addr = (uintptr_t)p, .len = 2 * PAGE },
		{ .addr = (uintptr_t)(p + 4 * PAGE), .len = 4 * PAGE },
	};

	(void)state;
	add_zc(&s);
	r.fd = s.ctrl.fd;
	for (unsigned int i = 0; i < 2; i++)
		r.as[i] = (struct uapi_ctrl_cmd){
			.dev_id = s.device,
			.queue_id = UINT16_MAX,
			.addr = (uintptr_t)&regs[i],
			.len = sizeof(regs[i]),
		};
	assert_int_equal(start_rewriting(&r), 0);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(issue_rewritten(&r, UBLK_U_CMD_REG_BUF), 0);
		assert_int_equal(abi_unreg(&s, 0), 0);
		assert_int_equal(abi_unreg(&s, 0), -ENOENT);
	}
	stop_rewriting(&r);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

/* ---- ADD_DEV: the number that was checked is the one that is used ---- */

#define DEVICE 40U

static void a_device_has_the_number_that_was_checked(void **state)
{
	struct rewriting r = { 0 };
	struct abi_server s = { 0 };
	unsigned int nr_added = 0;

	(void)state;
	assert_int_equal(ctrl_open(&s.ctrl), 0);
	r.fd = s.ctrl.fd;
	for (int i = 0; i < 60; i++) {
		struct ublksrv_ctrl_dev_info info = {
			.nr_hw_queues = 1,
			.queue_depth = 1,
			.max_io_buf_bytes = PAGE,
			.dev_id = DEVICE,
			.flags = UBLK_F_CMD_IOCTL_ENCODE,
		};
		int res;

		for (unsigned int j = 0; j < 2; j++)
			r.as[j] = (struct uapi_ctrl_cmd){
				.dev_id = DEVICE + j,
				.queue_id = UINT16_MAX,
				.addr = (uintptr_t)&info,
				.len = sizeof(info),
			};
		assert_int_equal(start_rewriting(&r), 0);
		res = issue_rewritten(&r, UBLK_U_CMD_ADD_DEV);
		stop_rewriting(&r);
		if (res == -EINVAL)
			continue; /* not info's */
		assert_int_equal(res, 0);
		assert_int_equal(info.dev_id, DEVICE);
		assert_int_equal(abi_command(&s, UBLK_U_CMD_DEL_DEV, DEVICE, 0, 0, 0), 0);
		nr_added++;
	}
	assert_true(nr_added > 0);
	ctrl_close(&s.ctrl);
}

/* ---- more in flight than the ring has entries ---- */

static void submit_unreg(struct io_uring *ring, const struct abi_server *s, unsigned int index)
{
	const struct uapi_ctrl_cmd cmd = {
		.dev_id = s->device,
		.queue_id = UINT16_MAX,
		.data = { index },
	};
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		abort();
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = s->ctrl.fd;
	sqe->off = UBLK_U_CMD_UNREG_BUF;
	sqe->user_data = index;
	memcpy(&sqe->addr3, &cmd, sizeof(cmd));
	assert_int_equal(io_uring_submit(ring), 1);
}

static void commands_in_flight_are_those_that_were_submitted(void **state)
{
	static bool done[NR_MANY];
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	struct abi_server s;
	uint8_t *p = shared_pages(NR_MANY);

	(void)state;
	add_zc(&s);
	register_pages(&s, p, NR_MANY);
	assert_true(pinned() >= NR_MANY);
	assert_int_equal(io_uring_queue_init(64, &ring, IORING_SETUP_SQE128), 0);
	for (unsigned int i = 0; i < NR_MANY; i++)
		submit_unreg(&ring, &s, i);
	for (unsigned int i = 0; i < NR_MANY; i++) {
		assert_int_equal(io_uring_wait_cqe(&ring, &cqe), 0);
		assert_int_equal(cqe->res, 0);
		assert_false(done[cqe->user_data]);
		done[cqe->user_data] = true;
		io_uring_cqe_seen(&ring, cqe);
	}
	io_uring_queue_exit(&ring);
	assert_nothing_pinned(); /* though the device is still there */
	abi_del(&s);
	munmap(p, NR_MANY * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_is_as_long_as_its_array),
		cmocka_unit_test(a_users_list_is_as_long_as_its_array),
		cmocka_unit_test(a_buffer_is_what_the_command_said),
		cmocka_unit_test(a_users_buffer_is_what_the_command_said),
		cmocka_unit_test(a_device_has_the_number_that_was_checked),
		cmocka_unit_test(commands_in_flight_are_those_that_were_submitted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
