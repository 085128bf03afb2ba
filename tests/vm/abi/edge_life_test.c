/* SPDX-License-Identifier: MIT */
/*
 * edge_life_test.c - buffers outlive servers, and end with devices.
 *
 * Recovery with buffers registered, in use and changed meanwhile; devices deleted with buffers
 * left; unprivileged devices, whose pages count against RLIMIT_MEMLOCK.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define RECOVERY_FLAGS (ZC_FLAGS | UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE)

static void change_buffers(struct abi_server *s, uint8_t *p)
{
	assert_int_equal(abi_reg(s, p, 4 * PAGE, 0), -EEXIST);
	assert_int_equal(abi_reg(s, p + 4 * PAGE, 2 * PAGE, 0), 1);
	assert_int_equal(abi_reg(s, p + 6 * PAGE, 2 * PAGE, 0), 2);
	assert_int_equal(abi_unreg(s, 1), 0);
}

static void buffers_outlive_the_server(void **state)
{
	struct abi_server *s = start_mortal(RECOVERY_FLAGS);
	uint8_t *p = shared_pages(8);

	(void)state;
	assert_int_equal(abi_reg(s, p, 4 * PAGE, 0), 0);
	assert_true(read_matches(s, p, PAGE));
	abi_kill_process(s);
	abi_begin_recovery(s);
	/* Meanwhile the stock driver would hang for ever if a request waited, of the kernel's
	 * partition scan for instance. */
	if (is_ours())
		change_buffers(s, p);
	abi_end_recovery(s);
	if (!is_ours())
		change_buffers(s, p);
	assert_true(read_matches(s, p + PAGE, 2 * PAGE));
	assert_last(s, 0, PAGE);
	assert_true(read_matches(s, p + 6 * PAGE, PAGE));
	assert_last(s, 2, 0);
	assert_false(read_matches(s, p + 4 * PAGE, PAGE));
	assert_int_equal(abi_unreg(s, 0), 0);
	assert_false(read_matches(s, p, PAGE));
	end_mortal(s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

/* Kill the server while it has a read of buffer 0, which is at @read->buf. */
static void kill_with_a_request(struct abi_server *s, struct read_call *read, pthread_t *reader)
{
	memset(read->buf, 0x22, read->len);
	s->hold = true;
	pthread_create(reader, NULL, read_thread, read);
	while (!s->nr_held)
		usleep(1000);
	abi_kill_process(s);
	s->hold = false;
	abi_begin_recovery(s);
}

static void requests_of_a_dead_server_are_looked_up_anew(void **state)
{
	struct abi_server *s;
	uint8_t *p = shared_pages(8);
	struct read_call read = { .buf = p, .len = 2 * PAGE };
	pthread_t reader;

	(void)state;
	if (!is_ours()) {
		print_message("the stock driver must not register here: the device would hang\n");
		skip();
	}
	read.s = s = start_mortal(RECOVERY_FLAGS);
	assert_int_equal(abi_reg(s, p, 4 * PAGE, 0), 0);
	/* the buffer stays: matched again */
	kill_with_a_request(s, &read, &reader);
	abi_end_recovery(s);
	pthread_join(reader, NULL);
	assert_int_equal(read.res, 2 * PAGE);
	assert_int_equal(p[0], 0x22);
	assert_last(s, 0, 0);
	/* it goes, and another comes, although the request waits: copied */
	kill_with_a_request(s, &read, &reader);
	assert_int_equal(abi_unreg(s, 0), 0);
	assert_int_equal(abi_reg(s, p + 4 * PAGE, 4 * PAGE, 0), 0);
	abi_end_recovery(s);
	pthread_join(reader, NULL);
	assert_int_equal(read.res, 2 * PAGE);
	assert_int_equal(p[0], ABI_FILL);
	/* the request's pages become another buffer's: matched there */
	kill_with_a_request(s, &read, &reader);
	assert_int_equal(abi_reg(s, p, 2 * PAGE, 0), 1);
	abi_end_recovery(s);
	pthread_join(reader, NULL);
	assert_int_equal(p[0], 0x22);
	assert_last(s, 1, 0);
	end_mortal(s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

/* Hold back a read of the first page at @read->buf. */
static void hold_a_read(struct abi_server *s, struct read_call *read, pthread_t *reader)
{
	s->hold_slow = 1;
	pthread_create(reader, NULL, read_thread, read);
	while (!s->nr_held)
		usleep(1000);
}

/* A process that unregisters buffer 0 through @ctrl; back when it waits. @p is in the buffer. */
static pid_t unregister_in_a_process(struct abi_server *s, struct ctrl *ctrl, uint8_t *p)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test fail */
		ctrl_unreg_buf(ctrl, s->device, 0, s);
		pause();
	}
	assert_true(pid > 0);
	while (read_matches(s, p, PAGE))
		usleep(1000);
	return pid;
}

static int result_of(struct ctrl *ctrl)
{
	struct io_uring_cqe *cqe;
	void *cookie;
	int res;

	assert_int_equal(io_uring_wait_cqe(&ctrl->ring, &cqe), 0);
	assert_int_equal(ctrl_collect(ctrl, &cookie, &res), 1);
	return res;
}

/*
 * Whoever waits may be killed, and the next one who unregisters waits in his place. The ring is
 * the parent's too, who sees what became of the command.
 */
static void unregistering_can_be_killed(void **state)
{
	struct abi_server s;
	struct ctrl ctrl;
	uint8_t *p = shared_pages(8);
	struct read_call read = {
		.s = &s, .buf = p, .len = PAGE, .at = ABI_SLOW_OFFSET - ABI_TEST_OFFSET
	};
	struct unreg_call unreg = { .s = &s, .index = 0, .res = 1 };
	pthread_t reader, thread;
	pid_t pid;

	(void)state;
	if (!is_ours()) {
		print_message("the stock driver waits whatever happens\n");
		skip();
	}
	assert_int_equal(ctrl_open(&ctrl), 0);
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	hold_a_read(&s, &read, &reader);
	pid = unregister_in_a_process(&s, &ctrl, p + 2 * PAGE);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(result_of(&ctrl), -EINTR);
	assert_int_equal(s.nr_held, 1);
	assert_true(pinned() >= 4);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, PAGE, 0), 1); /* the index is taken still */
	pthread_create(&thread, NULL, unreg_thread, &unreg);
	usleep(100000);
	assert_int_equal(unreg.res, 1);
	s.hold_slow = 0;
	pthread_join(thread, NULL);
	pthread_join(reader, NULL);
	assert_int_equal(unreg.res, 0);
	assert_int_equal(read.res, PAGE);
	assert_int_equal(abi_unreg(&s, 0), -ENOENT);
	abi_del(&s);
	ctrl_close(&ctrl);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

/* None is told that the buffer is gone while its pages are pinned. */
static void all_who_unregister_a_buffer_wait(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(4);
	struct read_call read = {
		.s = &s, .buf = p, .len = PAGE, .at = ABI_SLOW_OFFSET - ABI_TEST_OFFSET
	};
	struct unreg_call unreg[3];
	pthread_t reader, threads[3];
	int nr_done = 0;

	(void)state;
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	hold_a_read(&s, &read, &reader);
	for (int i = 0; i < 3; i++) {
		unreg[i] = (struct unreg_call){ .s = &s, .index = 0, .res = 1 };
		pthread_create(&threads[i], NULL, unreg_thread, &unreg[i]);
	}
	usleep(500000);
	for (int i = 0; i < 3; i++)
		assert_int_equal(unreg[i].res, 1);
	s.hold_slow = 0;
	pthread_join(reader, NULL);
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		nr_done += unreg[i].res == 0;
		assert_true(unreg[i].res == 0 || unreg[i].res == -ENOENT);
	}
	assert_int_equal(nr_done, 1);
	assert_int_equal(pinned(), 0);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0); /* the index is free */
	abi_del(&s);
	munmap(p, 4 * PAGE);
	assert_nothing_pinned();
}

static void deleting_releases_buffers_in_any_state(void **state)
{
	struct abi_server *s;
	struct abi_server never_started;
	uint8_t *p = shared_pages(8);

	(void)state;
	add_zc(&never_started);
	assert_int_equal(abi_reg(&never_started, p, 8 * PAGE, 0), 0);
	assert_int_equal(pinned(), 8);
	abi_del(&never_started);
	assert_nothing_pinned();

	s = start_mortal(RECOVERY_FLAGS);
	assert_int_equal(abi_reg(s, p, 8 * PAGE, 0), 0);
	abi_kill_process(s); /* never recovered */
	assert_int_equal(pinned(), 8);
	end_mortal(s);

	s = start_mortal(RECOVERY_FLAGS);
	assert_int_equal(abi_reg(s, p, 8 * PAGE, 0), 0);
	ctrl_stop_dev(&s->ctrl, s->device);
	assert_int_equal(pinned(), 8); /* stopped, not deleted */
	end_mortal(s);
	munmap(p, 8 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_outlive_the_server),
		cmocka_unit_test(requests_of_a_dead_server_are_looked_up_anew),
		cmocka_unit_test(unregistering_can_be_killed),
		cmocka_unit_test(all_who_unregister_a_buffer_wait),
		cmocka_unit_test(deleting_releases_buffers_in_any_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
