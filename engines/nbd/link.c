/* SPDX-License-Identifier: MIT */
/* link.c - see link.h. */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <time.h>

#include "connector.h"

#define REPLY_BYTES 16 /* of a simple reply, before its data */

/* ---- lists ---- */

void op_append(struct op_list *list, struct op *op)
{
	op->next = NULL;
	*(list->first ? list->end : &list->first) = op;
	list->end = &op->next;
}

struct op *op_take(struct op_list *list)
{
	struct op *op = list->first;

	if (op)
		list->first = op->next;
	return op;
}

/* ---- commands ---- */

static void piece_done(struct op *op, int err)
{
	if (err && !op->error)
		op->error = -err;
	if (!--op->pieces)
		op_append(op->link->done, op);
}

/* libnbd: a command of @data, an op, is done; 1: libnbd can forget it. */
static int command_done(void *data, int *error)
{
	struct op *op = data;

	op->link->commands--;
	op->link->taken += REPLY_BYTES;
	/* Of how many pieces this is one, nobody remembers: all of them, at most. */
	if (op->rq->op == UBLKZC_READ && !*error)
		op->link->taken += op->rq->len;
	piece_done(op, *error);
	return 1;
}

static void check_issued(struct op *op, int64_t cookie)
{
	int err;

	if (cookie >= 0)
		return;
	/* It never was a command, and nobody calls back. */
	op->link->commands--;
	err = nbd_get_errno();
	piece_done(op, err ? err : EIO);
}

static uint32_t fua_of(const struct op *op)
{
	bool want = op->rq->fua || op->link->disk->options.cache == CACHE_WRITETHROUGH;

	return want && op->link->disk->export.fua ? LIBNBD_CMD_FLAG_FUA : 0;
}

static void send_data(struct link *l, struct op *op)
{
	struct ublkzc_request *rq = op->rq;
	uint64_t at = rq->offset;

	op->pieces += rq->nr_iov;
	l->commands += rq->nr_iov;
	for (unsigned int i = 0; i < rq->nr_iov; i++) {
		nbd_completion_callback done = { command_done, op, NULL };
		const struct iovec *v = &rq->iov[i];

		check_issued(
			op, rq->op == UBLKZC_READ
				    ? nbd_aio_pread(l->handle, v->iov_base, v->iov_len, at, done, 0)
				    : nbd_aio_pwrite(l->handle, v->iov_base, v->iov_len, at, done,
						     fua_of(op)));
		at += v->iov_len;
	}
}

static void send_command(struct link *l, struct op *op)
{
	struct ublkzc_request *rq = op->rq;
	nbd_completion_callback done = { command_done, op, NULL };
	uint32_t no_hole = rq->no_unmap ? LIBNBD_CMD_FLAG_NO_HOLE : 0;

	op->pieces++;
	l->commands++;
	if (rq->op == UBLKZC_FLUSH || op->flushing) {
		op->covers = cache_covers(&l->disk->cache);
		check_issued(op, nbd_aio_flush(l->handle, done, 0));
	} else if (rq->op == UBLKZC_DISCARD) {
		check_issued(op, nbd_aio_trim(l->handle, rq->len, rq->offset, done, fua_of(op)));
	} else {
		check_issued(op, nbd_aio_zero(l->handle, rq->len, rq->offset, done,
					      no_hole | fua_of(op)));
	}
}

/* ---- the socket ---- */

/* True: still up. */
static bool go_on(struct link *l)
{
	unsigned int direction;

	if (nbd_aio_is_dead(l->handle) || nbd_aio_is_closed(l->handle)) {
		link_drop(l);
		return false;
	}
	direction = nbd_aio_get_direction(l->handle);
	if (direction & LIBNBD_AIO_DIRECTION_READ && !l->armed_in)
		l->armed_in = ublkzc_poll(l->io, l->fd, POLLIN) == 0;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE && !l->armed_out)
		l->armed_out = ublkzc_poll(l->io, l->fd, POLLOUT) == 0;
	return true;
}

void link_send(struct link *l, struct op *op)
{
	struct ublkzc_request *rq = op->rq;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	op->link = l;
	op->began = now.tv_sec;
	op->error = 0;
	op->pieces = 1; /* not done before all of it is sent */
	l->in_flight++;
	if ((rq->op == UBLKZC_READ || rq->op == UBLKZC_WRITE) && !op->flushing)
		send_data(l, op);
	else
		send_command(l, op);
	piece_done(op, 0);
	go_on(l);
}

static bool polled(const struct link *l, short events)
{
	struct pollfd fd = { l->fd, events, 0 };

	return poll(&fd, 1, 0) > 0;
}

/* At least so many bytes can be read; with TLS as they are on the wire. */
static long long to_read(const struct link *l)
{
	int n;

	/* Not of every family of sockets; but cheaper than poll(), and tells of many replies. */
	return ioctl(l->fd, FIONREAD, &n) == 0 ? n : polled(l, POLLIN);
}

/*
 * libnbd takes one reply at a time, and more may be there.  It must not be told to look when there
 * is nothing: it would wait for the reply that it was promised, and send nothing before.
 */
static void take_replies(struct link *l, long long left)
{
	unsigned int before;

	do {
		before = l->commands;
		l->taken = 0;
		nbd_aio_notify_read(l->handle);
		left -= l->taken;
		if (l->commands != before && l->commands && (left <= 0 || l->tls))
			left = to_read(l);
	} while (l->commands != before && l->commands && left > 0);
}

/* What the ring says may be of a socket that had the same number. */
void link_pump(struct link *l, bool out)
{
	long long left = to_read(l);

	if (!left && !polled(l, POLLRDHUP)) {
		if (out && nbd_aio_get_direction(l->handle) & LIBNBD_AIO_DIRECTION_WRITE)
			nbd_aio_notify_write(l->handle);
	} else if (nbd_aio_get_direction(l->handle) & LIBNBD_AIO_DIRECTION_READ) {
		take_replies(l, left);
	}
	go_on(l);
}

/* ---- up and down ---- */

void link_up(struct link *l)
{
	l->handle = l->slot->handle;
	l->size = l->slot->size;
	l->fd = nbd_aio_get_fd(l->handle);
	l->tls = nbd_get_tls_negotiated(l->handle) != 0;
	l->commands = 0;
	l->armed_in = l->armed_out = l->retiring = l->server_ends = false;
	atomic_store(&l->slot->state, SLOT_IN_USE);
	/* Its end must be noticed, with or without requests. */
	go_on(l);
}

void link_drop(struct link *l)
{
	nbd_close(l->handle);
	l->handle = NULL;
	connector_want(l->disk, l->slot);
}

void link_retire(struct link *l)
{
	atomic_store(&l->slot->polite, !l->server_ends);
	connection_take_leave(l->handle);
	l->handle = NULL;
	connector_want(l->disk, l->slot);
}
