/* SPDX-License-Identifier: MIT */
/*
 * queue.c - see queue.h.
 *
 *   queue thread   submit --> librbd                      its queue's list --> ends, in batches
 *   librbd's            its threads --> ended -->(flush, if FUA)--> ublkzc_complete()
 *
 * A read goes into the request's own memory.  A write is copied by librbd, within the call here: a
 * checksum goes with it through the network, and programs may change what they have asked to
 * be written (PostgreSQL does).
 */
#include "queue.h"

#include <errno.h>

#include "disk.h"

enum stage {
	STAGE_ASKED, /* as submit() finds it */
	STAGE_FLUSH, /* it is written, and now made stable */
};

static struct disk *disk_of(const struct ublkzc_request *rq)
{
	return rq->queue->target->priv;
}

static void begin(struct ublkzc_request *rq, int (*ask)(struct ublkzc_request *, rbd_completion_t));

/* ---- ask ---- */

static int ask_flush(struct ublkzc_request *rq, rbd_completion_t c)
{
	return rbd_aio_flush(disk_of(rq)->image, c);
}

static int ask_data(struct ublkzc_request *rq, rbd_completion_t c)
{
	rbd_image_t image = disk_of(rq)->image;

	if (rq->op == UBLKZC_READ)
		return rq->nr_iov == 1
			       ? rbd_aio_read(image, rq->offset, rq->len, rq->iov->iov_base, c)
			       : rbd_aio_readv(image, rq->iov, (int)rq->nr_iov, rq->offset, c);
	return rq->nr_iov == 1 ? rbd_aio_write(image, rq->offset, rq->len, rq->iov->iov_base, c)
			       : rbd_aio_writev(image, rq->iov, (int)rq->nr_iov, rq->offset, c);
}

static int ask(struct ublkzc_request *rq, rbd_completion_t c)
{
	rbd_image_t image = disk_of(rq)->image;

	switch (rq->op) {
	case UBLKZC_READ:
	case UBLKZC_WRITE:
		return ask_data(rq, c);
	case UBLKZC_FLUSH:
		return ask_flush(rq, c);
	case UBLKZC_DISCARD:
		return rbd_aio_discard(image, rq->offset, rq->len, c);
	case UBLKZC_WRITE_ZEROES:
		return rbd_aio_write_zeroes(
			image, rq->offset, rq->len, c,
			rq->no_unmap ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0, 0);
	}
	return -EOPNOTSUPP;
}

/* ---- end ---- */

/* Once: after that every request fails in the same way. */
static void say_cut_off(struct disk *d)
{
	if (!atomic_exchange(&d->cut_off, true))
		ublkzc_log(
			UBLKZC_LOG_ERROR,
			"%s: the cluster has cut this client off (blocklisted): somebody else has "
			"taken the image's lock, or an administrator did it; I/O fails until the "
			"device is added anew",
			d->target->path);
}

static int result_of(struct ublkzc_request *rq, ssize_t got)
{
	struct disk *d = disk_of(rq);

	if (got == -ESHUTDOWN) {
		say_cut_off(d);
		return -EIO;
	}
	if (got < 0)
		return (int)got;
	if (rq->op == UBLKZC_READ && got != (ssize_t)rq->len)
		return -EIO;
	/* What a dead server's cache had is lost, and to flush does not bring it back. */
	if ((rq->op == UBLKZC_FLUSH || rq->state == STAGE_FLUSH) &&
	    atomic_exchange(&d->doubt, false))
		return -EIO;
	return 0;
}

/* librbd's thread. */
static void ended(rbd_completion_t c, void *arg)
{
	struct ublkzc_request *rq = arg;
	int res = result_of(rq, rbd_aio_get_return_value(c));

	rbd_aio_release(c);
	if (!res && rq->fua && rq->op != UBLKZC_FLUSH && rq->state == STAGE_ASKED) {
		rq->state = STAGE_FLUSH;
		begin(rq, ask_flush);
		return;
	}
	ublkzc_complete(rq, res);
}

static void begin(struct ublkzc_request *rq,
		  int (*ask_for)(struct ublkzc_request *, rbd_completion_t))
{
	rbd_completion_t c;
	int ret = rbd_aio_create_completion(rq, ended, &c);

	if (!ret) {
		ret = ask_for(rq, c);
		if (ret < 0)
			rbd_aio_release(c);
	}
	if (ret < 0)
		ublkzc_complete(rq, ret);
}

void rbd_engine_submit(struct ublkzc_request *rq)
{
	begin(rq, ask);
}
