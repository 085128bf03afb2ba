/* SPDX-License-Identifier: MIT */
/* Commands to a driver that answers late, in another order, or is not reached at all. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/device/ctrl.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/server/fake_ring.h"

#define MOST 16U

static struct ctrl c;
static struct {
	uint64_t cookies[MOST]; /* that the driver has not answered */
	unsigned int nr;
	unsigned int nr_nops;
	unsigned int waits_before_answer;
	int answer; /* to the synchronous command */
} driver;

static void submitted(const struct io_uring_sqe *sqe)
{
	if (sqe->opcode == IORING_OP_NOP) {
		driver.nr_nops++;
		fake_ring_post(sqe->user_data, 0);
		return;
	}
	assert_int_equal(sqe->opcode, IORING_OP_URING_CMD);
	assert_true(driver.nr < MOST);
	driver.cookies[driver.nr++] = sqe->user_data;
}

static void answer(unsigned int i, int res)
{
	uint64_t cookie = driver.cookies[i];

	memmove(driver.cookies + i, driver.cookies + i + 1,
		(--driver.nr - i) * sizeof(driver.cookies[0]));
	fake_ring_post(cookie, res);
}

/* Whoever waits sees others' answers first: the last command is the synchronous one. */
static void wait_for_answer(void)
{
	if (driver.waits_before_answer && driver.nr > 1) {
		driver.waits_before_answer--;
		answer((unsigned int)rand() % (driver.nr - 1), 0);
	} else {
		answer(driver.nr - 1, driver.answer);
	}
}

static int set_up(void **state)
{
	(void)state;
	memset(&driver, 0, sizeof(driver));
	memset(&fake_ring, 0, sizeof(fake_ring));
	srand(1);
	fake_ring.submitted = submitted;
	fake_ring.wait = wait_for_answer;
	c = CTRL_CLOSED;
	return io_uring_queue_init(64, &c.ring, IORING_SETUP_SQE128);
}

static int tear_down(void **state)
{
	(void)state;
	io_uring_queue_exit(&c.ring);
	free(c.early);
	return 0;
}

static void expect_collected(uintptr_t want, int want_res)
{
	void *cookie;
	int res;

	assert_int_equal(ctrl_collect(&c, &cookie, &res), 1);
	assert_int_equal((uintptr_t)cookie, want);
	assert_int_equal(res, want_res);
}

static void expect_nothing(void)
{
	void *cookie;
	int res;

	assert_int_equal(ctrl_collect(&c, &cookie, &res), 0);
}

static void several_unregistrations_are_answered_in_any_order(void **state)
{
	static struct uapi_shmem_buf_reg reg;
	(void)state;

	for (uintptr_t i = 0; i < 8; i++)
		assert_int_equal(ctrl_unreg_buf(&c, 3, (unsigned int)i, (void *)(4096 + i)), 0);
	assert_int_equal(ctrl_reg_buf(&c, 3, &reg, (void *)5000), 0);
	expect_nothing();
	answer(8, 7);
	answer(5, -ENOENT);
	answer(0, 0);
	expect_collected(5000, 7);
	expect_collected(4096 + 5, -ENOENT);
	expect_collected(4096, 0);
	expect_nothing();
	while (driver.nr)
		answer(driver.nr - 1, 0);
	for (uintptr_t i = 7; i > 0; i--)
		if (i != 5)
			expect_collected(4096 + i, 0);
	expect_nothing();
	assert_int_equal(c.nr_async, 0);
}

static void answers_that_come_while_another_is_waited_for_are_kept(void **state)
{
	bool seen[8] = { false };
	(void)state;

	for (unsigned int turn = 0; turn < 50; turn++) {
		memset(seen, 0, sizeof(seen));
		for (uintptr_t i = 0; i < 8; i++)
			assert_int_equal(ctrl_unreg_buf(&c, 3, (unsigned int)i, (void *)(4096 + i)),
					 0);
		driver.waits_before_answer = turn % 9;
		driver.answer = turn % 2 ? -ENODEV : 0;
		assert_int_equal(ctrl_stop_dev(&c, 3), driver.answer);
		assert_int_equal(ctrl_has_early(&c), turn % 9 != 0);
		while (driver.nr)
			answer(0, 0);
		for (unsigned int i = 0; i < 8; i++) {
			void *cookie;
			int res;

			assert_int_equal(ctrl_collect(&c, &cookie, &res), 1);
			assert_true((uintptr_t)cookie >= 4096 && (uintptr_t)cookie < 4104);
			assert_false(seen[(uintptr_t)cookie - 4096]);
			seen[(uintptr_t)cookie - 4096] = true;
		}
		expect_nothing();
		assert_false(ctrl_has_early(&c));
	}
}

static void a_command_that_is_not_submitted_is_never_answered(void **state)
{
	static struct uapi_shmem_buf_reg reg;
	(void)state;

	fake_ring.submit_error = -EAGAIN;
	assert_int_equal(ctrl_reg_buf(&c, 3, &reg, (void *)4096), -EAGAIN);
	fake_ring.submit_error = -ENOMEM;
	assert_int_equal(ctrl_unreg_buf(&c, 3, 1, (void *)4097), -ENOMEM);
	fake_ring.submit_error = -EBUSY;
	assert_int_equal(ctrl_stop_dev(&c, 3), -EBUSY);
	assert_int_equal(driver.nr, 0);
	/* What is left of them goes with the next, and is nobody's. */
	assert_int_equal(ctrl_unreg_buf(&c, 3, 2, (void *)4098), 0);
	assert_int_equal(driver.nr, 1);
	assert_int_equal(driver.nr_nops, 3);
	expect_nothing();
	answer(0, 0);
	expect_collected(4098, 0);
	expect_nothing();
	driver.answer = -EINVAL;
	assert_int_equal(ctrl_start_dev(&c, 3, 1), -EINVAL);
}

/* Or the next one would have its answer. */
static void a_command_that_cannot_be_waited_for_is_waited_for_all_the_same(void **state)
{
	static const int errors[] = { -EINTR, -EAGAIN, -EBUSY, -ENOMEM };
	(void)state;

	for (unsigned int i = 0; i < 4; i++) {
		fake_ring.wait_error = errors[i];
		driver.answer = -ENODEV;
		assert_int_equal(ctrl_stop_dev(&c, 3), -ENODEV);
		driver.answer = 0;
		assert_int_equal(ctrl_del_dev(&c, 3), 0);
	}
	assert_int_equal(driver.nr, 0);
	expect_nothing();
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(several_unregistrations_are_answered_in_any_order),
		T(answers_that_come_while_another_is_waited_for_are_kept),
		T(a_command_that_is_not_submitted_is_never_answered),
		T(a_command_that_cannot_be_waited_for_is_waited_for_all_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
