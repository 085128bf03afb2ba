/* SPDX-License-Identifier: MIT */
/*
 * recovery_test.c - a successor may die at any point of a recovery, and another one recovers.
 *
 * The device has two queues where there are two processors, because a successor can die between
 * them.  One process serves both, without storage: a request is complete as soon as it is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define MAX_QUEUES 2U
#define DEPTH 4U
#define ATTEMPTS 3000 /* to begin a recovery, until it counts as impossible */

struct device {
	struct ctrl ctrl;
	unsigned int number;
	unsigned int nr_queues;
	unsigned int all; /* tags of all queues: a place is queue * DEPTH + tag */
	int disk_fd;
	pid_t server;
	atomic_bool *fetched; /* shared with the server */
};

/* ---- the server's process ---- */

static void command(struct io_uring *ring, unsigned int op, unsigned int place, int result)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct ublksrv_io_cmd *cmd;

	if (!sqe)
		_exit(1);
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, 0, NULL, 0, op);
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->user_data = place;
	cmd = (struct ublksrv_io_cmd *)&sqe->addr3;
	*cmd = (struct ublksrv_io_cmd){
		.q_id = (uint16_t)(place / DEPTH),
		.tag = (uint16_t)(place % DEPTH),
		.result = result,
	};
}

static int open_char(unsigned int number)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/ublkc%u", number);
	while ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
		usleep(1000);
	return fd;
}

static const struct ublksrv_io_desc *map_queue(int char_fd, unsigned int queue)
{
	size_t stride = UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc);
	void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, char_fd,
		       UBLKSRV_CMD_BUF_OFFSET + (off_t)(queue * stride));

	if (p == MAP_FAILED)
		_exit(1);
	return p;
}

/* Fetch at the first @nr places only, and serve what comes there. */
__attribute__((noreturn)) static void serve(const struct device *d, unsigned int nr)
{
	const struct ublksrv_io_desc *queues[MAX_QUEUES];
	int char_fd = open_char(d->number);
	struct io_uring_cqe *cqe;
	struct io_uring ring;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test fail */
	if (io_uring_queue_init(d->all, &ring, 0) || io_uring_register_files(&ring, &char_fd, 1))
		_exit(1);
	for (unsigned int q = 0; q < d->nr_queues; q++)
		queues[q] = map_queue(char_fd, q);
	for (unsigned int place = 0; place < nr; place++)
		command(&ring, UBLK_U_IO_FETCH_REQ, place, 0);
	if (io_uring_submit(&ring) != (int)nr)
		_exit(1);
	*d->fetched = true;
	while (!io_uring_wait_cqe(&ring, &cqe)) {
		unsigned int place = (unsigned int)cqe->user_data;
		int res = cqe->res;

		io_uring_cqe_seen(&ring, cqe);
		if (res != UBLK_IO_RES_OK)
			_exit(2);
		command(&ring, UBLK_U_IO_COMMIT_AND_FETCH_REQ, place,
			(int)(queues[place / DEPTH][place % DEPTH].nr_sectors << 9));
		io_uring_submit(&ring);
	}
	_exit(1);
}

/* ---- its device ---- */

static void start_server(struct device *d, unsigned int nr)
{
	*d->fetched = false;
	d->server = fork();
	assert_true(d->server >= 0);
	if (d->server == 0)
		serve(d, nr);
	while (!*d->fetched) {
		assert_int_equal(waitpid(d->server, NULL, WNOHANG), 0);
		usleep(1000);
	}
}

static void kill_server(struct device *d)
{
	kill(d->server, SIGKILL);
	assert_int_equal(waitpid(d->server, NULL, 0), d->server);
}

static void begin_recovery(struct device *d)
{
	int ret = -EBUSY;

	for (int i = 0; ret == -EBUSY && i < ATTEMPTS; i++) {
		ret = ctrl_start_recovery(&d->ctrl, d->number);
		if (ret == -EBUSY)
			usleep(10000);
	}
	assert_int_equal(ret, 0);
}

static void end_recovery(struct device *d)
{
	assert_int_equal(ctrl_end_recovery(&d->ctrl, d->number, d->server), 0);
}

static struct uapi_params small_disk(void)
{
	return (struct uapi_params){
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = {
			.logical_bs_shift = 9,
			.physical_bs_shift = 12,
			.io_min_shift = 9,
			.io_opt_shift = 12,
			.max_sectors = 8,
			.dev_sectors = 2048,
		},
	};
}

static struct device start(void)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = MAX_QUEUES,
		.queue_depth = DEPTH,
		.max_io_buf_bytes = PAGE,
		.dev_id = UINT32_MAX,
		.flags = UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_USER_RECOVERY |
			 UBLK_F_USER_RECOVERY_REISSUE,
	};
	struct uapi_params params = small_disk();
	struct device d = { .fetched = shared_pages(1) };
	char path[32];

	assert_int_equal(ctrl_open(&d.ctrl), 0);
	assert_int_equal(ctrl_add_dev(&d.ctrl, &info), 0);
	d.number = info.dev_id;
	d.nr_queues = info.nr_hw_queues;
	d.all = d.nr_queues * DEPTH;
	assert_int_equal(ctrl_set_params(&d.ctrl, d.number, &params), 0);
	start_server(&d, d.all);
	assert_int_equal(ctrl_start_dev(&d.ctrl, d.number, d.server), 0);
	snprintf(path, sizeof(path), "/dev/ublkb%u", d.number);
	d.disk_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	assert_true(d.disk_fd >= 0);
	return d;
}

static void *read_page(void *arg)
{
	struct device *d = arg;
	void *page = shared_pages(1);
	ssize_t n = pread(d->disk_fd, page, PAGE, 0);

	munmap(page, PAGE);
	return n == (ssize_t)PAGE ? d : NULL;
}

static void assert_serves(struct device *d)
{
	assert_non_null(read_page(d));
}

static void end(struct device *d)
{
	close(d->disk_fd);
	ctrl_stop_dev(&d->ctrl, d->number);
	waitpid(d->server, NULL, 0);
	ctrl_del_dev(&d->ctrl, d->number);
	ctrl_close(&d->ctrl);
	munmap(d->fetched, PAGE);
}

/* ---- the tests ---- */

/* A read waits until one of them lives. */
static void however_much_a_successor_had_fetched_another_one_recovers(void **state)
{
	struct device d = start();
	const unsigned int fetched[] = { 0, 1, d.all / 2, d.all / 2 + 1, d.all };
	pthread_t reader;
	void *res;

	(void)state;
	kill_server(&d);
	begin_recovery(&d);
	pthread_create(&reader, NULL, read_page, &d);
	for (size_t i = 0; i < sizeof(fetched) / sizeof(fetched[0]); i++) {
		print_message("one that fetched %u of %u\n", fetched[i], d.all);
		start_server(&d, fetched[i]);
		kill_server(&d);
		begin_recovery(&d);
	}
	start_server(&d, d.all);
	end_recovery(&d);
	pthread_join(reader, &res);
	assert_non_null(res);
	assert_serves(&d);
	end(&d);
}

struct end_call {
	struct ctrl ctrl; /* its own: another task waits with it */
	unsigned int device;
	int server;
	atomic_int res; /* 1: not back yet */
};

static void *end_thread(void *arg)
{
	struct end_call *call = arg;

	call->res = ctrl_end_recovery(&call->ctrl, call->device, call->server);
	return NULL;
}

/*
 * A driver may say so at once (6.12 with kernel-patch/: ECANCELED) or wait for the next one
 * to fetch (7.x), and then say that it is not the one that was named.
 */
static void a_recovery_does_not_end_without_its_successor(void **state)
{
	struct end_call call = { .res = 1 };
	pthread_t thread;
	struct device d;

	(void)state;
	d = start();
	if (!is_ours() && !offers_feature(UBLK_F_PER_IO_DAEMON)) {
		end(&d);
		print_message("Linux 6.12's own driver makes it live\n");
		skip();
	}
	kill_server(&d);
	begin_recovery(&d);
	start_server(&d, d.all);
	kill_server(&d);
	close(open_char(d.number)); /* until then the driver does not know */
	assert_int_equal(ctrl_open(&call.ctrl), 0);
	call.device = d.number;
	call.server = d.server;
	pthread_create(&thread, NULL, end_thread, &call);
	usleep(200000);
	assert_true(call.res == 1 || call.res == -ECANCELED);
	print_message("%s\n", call.res == 1 ? "it waits" : "ECANCELED");
	begin_recovery(&d);
	start_server(&d, d.all);
	end_recovery(&d);
	pthread_join(thread, NULL);
	assert_true(call.res == -ECANCELED || call.res == -EINVAL);
	ctrl_close(&call.ctrl);
	assert_serves(&d);
	end(&d);
}

/* What the driver does about the dead one's commands is not done to the successor's. */
static void a_quick_successor_keeps_its_commands(void **state)
{
	struct device d = start();

	(void)state;
	for (int i = 0; i < 10; i++) {
		kill_server(&d);
		begin_recovery(&d);
		start_server(&d, d.all);
		end_recovery(&d);
		assert_serves(&d);
		assert_int_equal(waitpid(d.server, NULL, WNOHANG), 0);
	}
	end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(however_much_a_successor_had_fetched_another_one_recovers),
		cmocka_unit_test(a_recovery_does_not_end_without_its_successor),
		cmocka_unit_test(a_quick_successor_keeps_its_commands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
