/* SPDX-License-Identifier: MIT */
/* ublk_device.c - see ublk_device.h. */
#include "ublk_device.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ublkzc/server.h>

/* What <linux/ublk_cmd.h> of older distributions does not have. */
#ifndef UBLK_F_USER_COPY
#define UBLK_F_USER_COPY (1UL << 7)
#endif
#define CONTROL(nr) _IOWR('u', (nr), struct ublksrv_ctrl_cmd)
enum { ADD = 4, DEL = 5, START = 6, STOP = 7, SET_PARAMS = 8, RECOVER = 16, RECOVERED = 17 };
#define QUEUE(nr) _IOWR('u', (nr), struct ublksrv_io_cmd)
enum { FETCH = 0x20, COMMIT_AND_FETCH = 0x21 };

static void begin(struct ublk_device *d, unsigned int nr, void *buf, size_t len)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&d->commands);
	struct ublksrv_ctrl_cmd cmd = { .dev_id = d->number,
					.queue_id = 0xffff,
					.len = (__u16)len };

	if (!sqe)
		errx(1, "the ring is full");
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = d->control;
	sqe->off = CONTROL(nr);
	cmd.addr = (uintptr_t)buf;
	cmd.data[0] = nr == START || nr == RECOVERED ? (__u64)getpid() : 0;
	memcpy(&sqe->addr3, &cmd, sizeof(cmd));
	sqe->flags = IOSQE_ASYNC;
	if (io_uring_submit(&d->commands) != 1)
		errx(1, "io_uring_submit");
}

static int end(struct ublk_device *d)
{
	struct io_uring_cqe *cqe;
	int res;

	while ((res = io_uring_wait_cqe(&d->commands, &cqe)) == -EINTR)
		;
	res = res ? res : cqe->res;
	io_uring_cq_advance(&d->commands, 1);
	return res;
}

static void must(struct ublk_device *d, const char *what, int res)
{
	if (res < 0)
		errx(1, "%s device %u: %s", what, d->number, strerror(-res));
}

static void command(struct ublk_device *d, const char *what, unsigned int nr, void *buf, size_t len)
{
	begin(d, nr, buf, len);
	must(d, what, end(d));
}

static void add(struct ublk_device *d, unsigned long long bytes)
{
	struct ublksrv_ctrl_dev_info info = {
		.dev_id = d->number,
		.nr_hw_queues = 1,
		.queue_depth = DEPTH,
		.max_io_buf_bytes = MAX_IO,
		.flags = UBLK_F_USER_COPY | UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE |
			 UBLKZC_SERVER_F_SHMEM_ZC, /* ublkzc: this is what it needs */
	};
	struct ublk_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = { .attrs = UBLK_ATTR_VOLATILE_CACHE,
			   .logical_bs_shift = 9,
			   .physical_bs_shift = 12,
			   .io_opt_shift = 12,
			   .io_min_shift = 9,
			   .max_sectors = MAX_IO >> 9,
			   .dev_sectors = bytes >> 9 },
	};

	command(d, "add", ADD, &info, sizeof(info));
	command(d, "set up", SET_PARAMS, &params, sizeof(params));
}

/* -EBUSY: the driver has not noticed yet that the last server is gone. */
static void recover(struct ublk_device *d)
{
	int res = -EBUSY;

	while (res == -EBUSY) {
		begin(d, RECOVER, NULL, 0);
		res = end(d);
		usleep(res == -EBUSY ? 10000 : 0);
	}
	must(d, "recover", res);
}

void device_open(struct ublk_device *d, unsigned int number, unsigned long long bytes,
		 bool recovering)
{
	char path[32];

	*d = (struct ublk_device){ .number = number, .recovering = recovering };
	d->control = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	if (d->control < 0 || io_uring_queue_init(4, &d->commands, IORING_SETUP_SQE128))
		err(1, "/dev/ublk-control");
	if (recovering)
		recover(d);
	else
		add(d, bytes);
	snprintf(path, sizeof(path), "/dev/ublkc%u", number);
	d->fd = open(path, O_RDWR | O_CLOEXEC);
	d->descs = d->fd < 0 ? MAP_FAILED
			     : mmap(NULL, DEPTH * sizeof(*d->descs), PROT_READ,
				    MAP_SHARED | MAP_POPULATE, d->fd, UBLKSRV_CMD_BUF_OFFSET);
	if (d->descs == MAP_FAILED)
		err(1, "%s", path);
}

void device_begin_start(struct ublk_device *d)
{
	begin(d, d->recovering ? RECOVERED : START, NULL, 0);
}

void device_end_start(struct ublk_device *d)
{
	must(d, "start", end(d));
}

void device_begin_stop(struct ublk_device *d)
{
	begin(d, STOP, NULL, 0);
}

void device_delete(struct ublk_device *d)
{
	must(d, "stop", end(d));
	munmap((void *)d->descs, DEPTH * sizeof(*d->descs));
	close(d->fd); /* which DEL waits for */
	command(d, "delete", DEL, NULL, 0);
}

void device_prepare(const struct ublk_device *d, struct io_uring_sqe *sqe, unsigned int tag,
		    bool commit, int result)
{
	struct ublksrv_io_cmd cmd = { .tag = (__u16)tag, .result = result };

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = d->fd;
	sqe->off = QUEUE(commit ? COMMIT_AND_FETCH : FETCH);
	memcpy(&sqe->addr3, &cmd, sizeof(cmd));
}
