/* SPDX-License-Identifier: MIT */
/*
 * file.c - a regular file or a block device: its requests.  backing.c opens it.
 *
 * Direct I/O when the storage can, so that nothing is cached twice and a
 * matched request moves between the client's pages and the storage with no
 * copy at all.  Pages that the ring has pinned are not pinned again.  FLUSH is
 * fdatasync, FUA is RWF_DSYNC.
 *
 * The mem target is this one on a memfd: mem.c.
 */
#include "file.h"

#include <errno.h>
#include <linux/falloc.h>
#include <liburing.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backing.h"
#include "engines.h"

#define ZERO_PIECE (256U << 10) /* bytes */

/* request.state */
#define WRITING_ZEROES 1U

/* ---- requests ---- */

static void point_at_list(struct io_uring_sqe *sqe, const struct ublkzc_request *rq)
{
	sqe->opcode = rq->op == UBLKZC_READ ? IORING_OP_READV : IORING_OP_WRITEV;
	sqe->addr = (uintptr_t)rq->iov;
	sqe->len = rq->nr_iov;
}

/* @fixed: as of ublkzc_fixed(). */
static void point_at_data(struct io_uring_sqe *sqe, const struct ublkzc_request *rq, int fixed)
{
	bool reads = rq->op == UBLKZC_READ;

	sqe->addr = (uintptr_t)rq->iov->iov_base;
	sqe->len = (unsigned int)rq->iov->iov_len;
	if (fixed < 0) {
		sqe->opcode = reads ? IORING_OP_READ : IORING_OP_WRITE;
		return;
	}
	sqe->opcode = reads ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
	sqe->buf_index = (uint16_t)fixed;
}

static void queue_rw(struct ublkzc_request *rq)
{
	int fixed = rq->nr_iov == 1 ? ublkzc_fixed(rq) : -1;
	struct io_uring_sqe *sqe = ublkzc_sqe(rq);

	if (rq->nr_iov > 1)
		point_at_list(sqe, rq);
	else
		point_at_data(sqe, rq, fixed);
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = UBLKZC_FILE;
	sqe->off = rq->offset + rq->done;
	if (rq->op == UBLKZC_WRITE && rq->fua)
		sqe->rw_flags = RWF_DSYNC;
}

static void queue_fsync(struct ublkzc_request *rq)
{
	struct io_uring_sqe *sqe = ublkzc_sqe(rq);

	sqe->opcode = IORING_OP_FSYNC;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = UBLKZC_FILE;
	sqe->fsync_flags = IORING_FSYNC_DATASYNC;
}

/* A hole reads as zeroes, so it serves WRITE_ZEROES too unless the space
 * must stay allocated. */
static void queue_fallocate(struct ublkzc_request *rq)
{
	struct io_uring_sqe *sqe = ublkzc_sqe(rq);
	bool keep = rq->op == UBLKZC_WRITE_ZEROES && rq->no_unmap;

	sqe->opcode = IORING_OP_FALLOCATE;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = UBLKZC_FILE;
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

static void queue_zeroes(struct ublkzc_request *rq)
{
	struct io_uring_sqe *sqe = ublkzc_sqe(rq);
	uint32_t left = rq->len - rq->done;

	rq->state = WRITING_ZEROES;
	sqe->opcode = IORING_OP_WRITE;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = UBLKZC_FILE;
	sqe->addr = (uintptr_t)zeroes;
	sqe->len = left < ZERO_PIECE ? left : ZERO_PIECE;
	sqe->off = rq->offset + rq->done;
}

static void zeroes_written(struct ublkzc_request *rq, int res)
{
	if (res == -EINTR || res == -EAGAIN) {
		queue_zeroes(rq);
		return;
	}
	if (res <= 0) {
		ublkzc_complete(rq, res ? res : -EIO);
		return;
	}
	rq->done += (uint32_t)res;
	if (rq->done == rq->len)
		ublkzc_complete(rq, 0);
	else
		queue_zeroes(rq);
}

void file_submit(struct ublkzc_request *rq)
{
	switch (rq->op) {
	case UBLKZC_READ:
	case UBLKZC_WRITE:
		queue_rw(rq);
		break;
	case UBLKZC_FLUSH:
		queue_fsync(rq);
		break;
	default:
		queue_fallocate(rq);
	}
}

void file_cqe(struct ublkzc_request *rq, int res)
{
	bool has_data = rq->op == UBLKZC_READ || rq->op == UBLKZC_WRITE;

	if (rq->state == WRITING_ZEROES) {
		zeroes_written(rq, res);
		return;
	}
	if (res == -EOPNOTSUPP && rq->op == UBLKZC_WRITE_ZEROES) {
		queue_zeroes(rq);
		return;
	}
	if (res == -EINTR || (res == -EAGAIN && has_data)) {
		file_submit(rq);
		return;
	}
	if (res < 0 || !has_data) {
		ublkzc_complete(rq, res);
		return;
	}
	ublkzc_advance(rq, (size_t)res);
	if (rq->done == rq->len)
		ublkzc_complete(rq, 0);
	else if (res == 0) /* end of file: the backing has been cut short */
		ublkzc_complete(rq, -EIO);
	else
		queue_rw(rq);
}

void file_close(struct ublkzc_target *target)
{
	if (target->fd >= 0)
		close(target->fd);
	target->fd = -1;
}

static const struct ublkzc_option options[] = {
	{ "buffered", "yes|no", "use the page cache, not direct I/O; default no" },
	{ "force", "yes|no",
	  "also a block device that is mounted or otherwise in use; default no" },
	{ NULL, NULL, NULL },
};

/*
 * No fence: all I/O is by the queues' rings, and the driver hands a device to a successor when the
 * last ring that has its /dev/ublkcN is gone, which waits for what is under way in it.
 */
const struct ublkzc_engine engine_file = {
	.size = sizeof(engine_file),
	.flags = UBLKZC_FIXED,
	.name = "file",
	.summary = "a regular file or a block device, by direct I/O when it can",
	.argument = "PATH",
	.options = options,
	.check = backing_check,
	.open = backing_open,
	.grow = backing_grow,
	.submit = file_submit,
	.cqe = file_cqe,
	.close = file_close,
};
