/* SPDX-License-Identifier: MIT */
/*
 * target_file.c - a regular file or a block device: its requests.  backing.c opens it.
 *
 * Direct I/O when the storage can, so that nothing is cached twice and a
 * matched request moves between the client's pages and the storage with no
 * copy at all.  FLUSH is fdatasync, FUA is RWF_DSYNC.
 *
 * The mem target is this one on a memfd: target_mem.c.
 */
#include "target_file.h"

#include <errno.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include "server/queue/queue.h"
#include "server/queue/target.h"
#include "backing.h"
#include "targets.h"

#define ZERO_PIECE (256U << 10) /* bytes */

/* ---- requests ---- */

static void point_at_data(struct io_uring_sqe *sqe, const struct request *rq)
{
	const struct segments *s = rq->segments;

	if (s) {
		sqe->opcode = rq->op == REQ_READ ? IORING_OP_READV : IORING_OP_WRITEV;
		sqe->addr = (uintptr_t)(s->iov + s->first);
		sqe->len = s->nr - s->first;
	} else {
		sqe->opcode = rq->op == REQ_READ ? IORING_OP_READ : IORING_OP_WRITE;
		sqe->addr = (uintptr_t)(rq->data + rq->done);
		sqe->len = rq->len - rq->done;
	}
}

static void queue_rw(struct queue *q, struct request *rq)
{
	struct io_uring_sqe *sqe = request_sqe(q, rq);

	point_at_data(sqe, rq);
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = QUEUE_TARGET_FILE;
	sqe->off = rq->offset + rq->done;
	if (rq->op == REQ_WRITE && rq->fua)
		sqe->rw_flags = RWF_DSYNC;
}

static void queue_fsync(struct queue *q, struct request *rq)
{
	struct io_uring_sqe *sqe = request_sqe(q, rq);

	sqe->opcode = IORING_OP_FSYNC;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = QUEUE_TARGET_FILE;
	sqe->fsync_flags = IORING_FSYNC_DATASYNC;
}

/* A hole reads as zeroes, so it serves WRITE_ZEROES too unless the space
 * must stay allocated. */
static void queue_fallocate(struct queue *q, struct request *rq)
{
	struct io_uring_sqe *sqe = request_sqe(q, rq);
	bool keep = rq->op == REQ_WRITE_ZEROES && rq->no_unmap;

	sqe->opcode = IORING_OP_FALLOCATE;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = QUEUE_TARGET_FILE;
	sqe->off = rq->offset;
	sqe->addr = rq->len;
	sqe->len = (unsigned int)FALLOC_FL_KEEP_SIZE |
		   (unsigned int)(keep ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
}

/*
 * For storage that cannot zero a range and keep it allocated (tmpfs): write
 * zeroes, a piece at a time.
 */
static _Alignas(4096) const uint8_t zeroes[ZERO_PIECE];

static void queue_zeroes(struct queue *q, struct request *rq)
{
	struct io_uring_sqe *sqe = request_sqe(q, rq);
	uint32_t left = rq->len - rq->done;

	rq->writing_zeroes = true;
	sqe->opcode = IORING_OP_WRITE;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = QUEUE_TARGET_FILE;
	sqe->addr = (uintptr_t)zeroes;
	sqe->len = left < ZERO_PIECE ? left : ZERO_PIECE;
	sqe->off = rq->offset + rq->done;
}

static void zeroes_written(struct queue *q, struct request *rq, int res)
{
	if (res == -EINTR || res == -EAGAIN) {
		queue_zeroes(q, rq);
		return;
	}
	if (res <= 0) {
		request_complete(q, rq, res ? res : -EIO);
		return;
	}
	rq->done += (uint32_t)res;
	if (rq->done == rq->len)
		request_complete(q, rq, 0);
	else
		queue_zeroes(q, rq);
}

void target_file_submit(struct queue *q, struct request *rq)
{
	switch (rq->op) {
	case REQ_READ:
	case REQ_WRITE:
		queue_rw(q, rq);
		break;
	case REQ_FLUSH:
		queue_fsync(q, rq);
		break;
	default:
		queue_fallocate(q, rq);
	}
}

void target_file_cqe(struct queue *q, struct request *rq, int res)
{
	bool has_data = rq->op == REQ_READ || rq->op == REQ_WRITE;

	if (rq->writing_zeroes) {
		zeroes_written(q, rq, res);
		return;
	}
	if (res == -EOPNOTSUPP && rq->op == REQ_WRITE_ZEROES) {
		queue_zeroes(q, rq);
		return;
	}
	if (res == -EINTR || (res == -EAGAIN && has_data)) {
		target_file_submit(q, rq);
		return;
	}
	if (res < 0 || !has_data) {
		request_complete(q, rq, res);
		return;
	}
	rq->done += (uint32_t)res;
	if (rq->segments)
		segments_advance(rq->segments, (uint32_t)res);
	if (rq->done == rq->len)
		request_complete(q, rq, 0);
	else if (res == 0) /* end of file: the backing has been cut short */
		request_complete(q, rq, -EIO);
	else
		queue_rw(q, rq);
}

void target_file_close(struct target *target)
{
	if (target->fd >= 0)
		close(target->fd);
	target->fd = -1;
}

const struct target_ops target_file = {
	.name = "file",
	.help = "a regular file or a block device (PATH), by direct I/O when it can",
	.takes_path = true,
	.open = backing_open,
	.grow = backing_grow,
	.submit = target_file_submit,
	.cqe = target_file_cqe,
	.close = target_file_close,
};
