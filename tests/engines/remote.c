/* SPDX-License-Identifier: MIT */
/*
 * remote.c - an engine whose storage is another process (storage.c), as NBD's or Ceph's is:
 * requests are ended on threads of its own, and what a dead server had under way must be fenced.
 *
 * -o fence=no leaves the fence out, to see what happens then.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <ublkzc/engine.h>
#include <unistd.h>

#include "remote.h"

struct remote_queue {
	int fd;
	pthread_t reader;
	_Atomic(struct ublkzc_request *) *by_tag;
	char buffer[REMOTE_MAX_IO];
};

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ret;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	ret = -errno;
	ublkzc_log(UBLKZC_LOG_ERROR, "%s: %s", path, strerror(-ret));
	if (fd >= 0)
		close(fd);
	return ret;
}

static bool read_all(int fd, void *data, size_t len)
{
	return recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

static int remote_open(struct ublkzc_target *t)
{
	const char *size = ublkzc_setting(t, "bytes");

	t->size = size ? strtoull(size, NULL, 10) : 1 << 20;
	t->block_size = 512;
	t->max_io = REMOTE_MAX_IO;
	t->volatile_cache = true;
	return 0;
}

static int remote_fence(struct ublkzc_target *t)
{
	struct remote_request rq = { .op = REMOTE_FENCE };
	struct remote_reply reply;
	int fd;
	bool done;

	ublkzc_log(UBLKZC_LOG_WARNING, "fence=%s",
		   ublkzc_setting(t, "fence") ? ublkzc_setting(t, "fence") : "yes");
	if (ublkzc_setting(t, "fence") && ublkzc_setting_yes(t, "fence") == 0)
		return 0;
	fd = connect_to(t->path);
	if (fd < 0)
		return fd;
	done = write(fd, &rq, sizeof(rq)) == sizeof(rq) && read_all(fd, &reply, sizeof(reply));
	close(fd);
	return done ? 0 : -EIO;
}

static void *read_replies(void *arg)
{
	struct ublkzc_queue *q = arg;
	struct remote_queue *rq = q->priv;
	struct remote_reply reply;

	while (read_all(rq->fd, &reply, sizeof(reply))) {
		struct ublkzc_request *done = atomic_load(&rq->by_tag[reply.tag]);
		size_t at = 0;

		if (done->op == UBLKZC_READ && !reply.result) {
			if (!read_all(rq->fd, rq->buffer, done->len))
				break;
			/* By a system call: the memory may be gone. */
			for (unsigned int i = 0; !reply.result && i < done->nr_iov; i++) {
				struct iovec from = { rq->buffer + at, done->iov[i].iov_len };

				if (process_vm_writev(getpid(), &from, 1, &done->iov[i], 1, 0) !=
				    (ssize_t)from.iov_len)
					reply.result = -EFAULT;
				at += from.iov_len;
			}
		}
		ublkzc_complete(done, reply.result);
	}
	return NULL;
}

static int remote_queue_open(struct ublkzc_queue *q)
{
	struct remote_queue *rq = calloc(1, sizeof(*rq));

	if (!rq)
		return -ENOMEM;
	q->priv = rq;
	rq->by_tag = calloc(q->target->depth, sizeof(*rq->by_tag));
	rq->fd = connect_to(q->target->path);
	if (rq->fd >= 0 && rq->by_tag && !pthread_create(&rq->reader, NULL, read_replies, q))
		return 0;
	free(rq->by_tag);
	free(rq);
	return -EIO;
}

static void remote_queue_close(struct ublkzc_queue *q)
{
	struct remote_queue *rq = q->priv;

	shutdown(rq->fd, SHUT_RDWR);
	pthread_join(rq->reader, NULL);
	close(rq->fd);
	free(rq->by_tag);
	free(rq);
}

static void remote_submit(struct ublkzc_request *r)
{
	struct remote_queue *rq = r->queue->priv;
	struct remote_request ask = {
		.op = r->op == UBLKZC_WRITE ? REMOTE_WRITE : REMOTE_READ,
		.tag = r->tag,
		.offset = r->offset,
		.len = r->len,
	};
	struct iovec iov[1 + 64] = { { &ask, sizeof(ask) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 1 };
	ssize_t len = sizeof(ask);

	if (r->op == UBLKZC_FLUSH) {
		ublkzc_complete(r, 0);
		return;
	}
	for (unsigned int i = 0; r->op == UBLKZC_WRITE && i < r->nr_iov && i < 64; i++) {
		iov[msg.msg_iovlen++] = r->iov[i];
		len += (ssize_t)r->iov[i].iov_len;
	}
	atomic_store(&rq->by_tag[r->tag], r);
	/* A test: it may wait, the storage always reads. */
	if (sendmsg(rq->fd, &msg, MSG_NOSIGNAL) != len)
		ublkzc_complete(r, -EIO);
}

static void remote_close(struct ublkzc_target *t)
{
	(void)t;
}

static const struct ublkzc_option options[] = {
	{ "bytes", "NUMBER", "how large the storage is" },
	{ "fence", "yes|no", "stop what a dead server had under way" },
	{ NULL, NULL, NULL },
};

static const struct ublkzc_engine engine = {
	.size = sizeof(engine),
	.name = "remote",
	.summary = "another process, over a unix socket",
	.argument = "SOCKET",
	.options = options,
	.open = remote_open,
	.fence = remote_fence,
	.close = remote_close,
	.queue_open = remote_queue_open,
	.queue_close = remote_queue_close,
	.submit = remote_submit,
};

UBLKZC_ENGINE(engine);
