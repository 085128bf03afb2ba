/* SPDX-License-Identifier: MIT */
/* commands.c - control commands, each thread's through a ring of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world.h"

struct commander {
	struct io_uring ring;
	int fd;
	pid_t owner; /* a child must not use its parent's ring */
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void dismiss(void *arg)
{
	struct commander *c = arg;

	io_uring_queue_exit(&c->ring);
	close(c->fd);
	free(c);
}

static void make_key(void)
{
	pthread_key_create(&key, dismiss);
}

static struct commander *commander(void)
{
	struct commander *c;

	pthread_once(&once, make_key);
	c = pthread_getspecific(key);
	if (c && c->owner == getpid())
		return c;
	c = calloc(1, sizeof(*c));
	if (!c)
		wrong("fuzzer: no memory");
	c->owner = getpid();
	c->fd = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	if (c->fd < 0 || io_uring_queue_init(2, &c->ring, IORING_SETUP_SQE128))
		wrong("fuzzer: /dev/ublk-control: %s", strerror(errno));
	pthread_setspecific(key, c);
	return c;
}

int command_raw(unsigned int op, unsigned int number, uint64_t addr, uint16_t len, uint64_t data)
{
	struct uapi_ctrl_cmd cmd = {
		.dev_id = number, .queue_id = UINT16_MAX, .addr = addr, .len = len, .data = { data }
	};
	struct commander *c = commander();
	struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);
	struct io_uring_cqe *cqe;
	int res;

	if (!sqe)
		wrong("fuzzer: no entry");
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = c->fd;
	sqe->off = op;
	memcpy(&sqe->addr3, &cmd, sizeof(cmd));
	io_uring_submit(&c->ring);
	while ((res = io_uring_wait_cqe(&c->ring, &cqe)) == -EINTR)
		;
	if (res)
		wrong("fuzzer: wait: %s", strerror(-res));
	res = cqe->res;
	io_uring_cqe_seen(&c->ring, cqe);
	return res;
}

int command(struct device *d, unsigned int op, const void *addr, uint16_t len, uint64_t data)
{
	return command_raw(op, d->number, (uintptr_t)addr, len, data);
}
