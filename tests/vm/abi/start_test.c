/* SPDX-License-Identifier: MIT */
/*
 * start_test.c - a device does not start without its server.
 *
 * The server may have fetched on all tags and be gone when somebody starts the device: then what it
 * has fetched with is gone as well, and a request must not find it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "users.h"

/* A process that fetches on all tags, with @buffer for data if any, and serves nothing. */
static pid_t start_fetching(const struct abi_server *s, atomic_bool *fetched, void *buffer)
{
	struct io_uring ring;
	char path[32];
	pid_t pid;
	int fd;

	*fetched = false;
	pid = fork();
	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(path, sizeof(path), "/dev/ublkc%u", s->device);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || io_uring_queue_init(ABI_DEPTH, &ring, 0))
		_exit(1);
	for (uint16_t tag = 0; tag < ABI_DEPTH; tag++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
		struct ublksrv_io_cmd *cmd = (struct ublksrv_io_cmd *)&sqe->addr3;

		io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, NULL, 0, UBLK_U_IO_FETCH_REQ);
		*cmd = (struct ublksrv_io_cmd){ .tag = tag, .addr = (uintptr_t)buffer };
	}
	*fetched = io_uring_submit(&ring) == (int)ABI_DEPTH;
	pause();
	_exit(1);
}

/* What START_DEV says; and if it starts, whether a read ends. */
static int start_and_read(struct abi_server *s, pid_t server)
{
	int ret = abi_command(s, UBLK_U_CMD_START_DEV, s->device, 0, 0, (uint64_t)server);
	char path[32];
	int fd;

	if (ret)
		return ret;
	s->started = true;
	snprintf(path, sizeof(path), "/dev/ublkb%u", s->device);
	fd = open(path, O_RDONLY | O_DIRECT);
	if (fd >= 0) {
		uint8_t *p = shared_pages(1);

		if (pread(fd, p, PAGE, 0) != (ssize_t)PAGE)
			print_message("a read: %d\n", errno);
		close(fd);
	}
	return 0;
}

static void not_started(uint64_t flags, bool killed)
{
	atomic_bool *fetched = shared_pages(1);
	struct abi_server s;
	pid_t server;

	add_with(&s, flags);
	close(s.char_fd); /* the server's own counts */
	s.char_fd = -1;
	server = start_fetching(&s, fetched, NULL);
	while (!*fetched)
		usleep(1000);
	if (killed) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
		sleep(1); /* its ring goes by and by */
	} else {
		assert_int_equal(ctrl_stop_dev(&s.ctrl, s.device), 0);
	}
	assert_int_equal(start_and_read(&s, server), -ECANCELED);
	assert_int_equal(start_and_read(&s, server), -ECANCELED);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	ctrl_del_dev(&s.ctrl, s.device);
	ctrl_close(&s.ctrl);
}

static void requires_612(void)
{
	struct utsname name;

	uname(&name);
	if (strncmp(name.release, "6.12.", 5) == 0)
		return;
	print_message("later kernels wait for another server\n");
	skip();
}

static void a_device_whose_server_died_does_not_start(void **state)
{
	(void)state;
	requires_612();
	not_started(ZC_FLAGS, true);
	not_started(ZC_FLAGS | UBLK_F_USER_RECOVERY, true);
}

static void a_device_that_was_stopped_does_not_start(void **state)
{
	(void)state;
	requires_612();
	not_started(ZC_FLAGS, false);
}

static int start_without_server(struct both *b)
{
	struct uapi_params params = {
		.len = offsetof(struct uapi_params, discard),
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = { .logical_bs_shift = 9,
			   .physical_bs_shift = 12,
			   .io_min_shift = 9,
			   .io_opt_shift = 12,
			   .max_sectors = ABI_IO_BYTES >> 9,
			   .dev_sectors = ABI_DEVICE_BYTES >> 9 },
	};
	atomic_bool *fetched = shared_pages(1);
	pid_t server;

	EXPECT(abi_command(&b->s, UBLK_U_CMD_SET_PARAMS, b->s.device, (uintptr_t)&params,
			   (uint16_t)params.len, 0),
	       0);
	server = start_fetching(&b->s, fetched, b->pages);
	while (!*fetched)
		usleep(1000);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	sleep(1);
	EXPECT(start_and_read(&b->s, server), -ECANCELED);
	return 0;
}

static void nor_does_a_users(void **state)
{
	struct both *b;

	(void)state;
	requires_612();
	b = add_users_device();
	as_user(USER, start_without_server, b);
	delete_users_device(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_whose_server_died_does_not_start),
		cmocka_unit_test(a_device_that_was_stopped_does_not_start),
		cmocka_unit_test(nor_does_a_users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
