/* SPDX-License-Identifier: MIT */
/*
 * target_file.c - a regular file or a block device.
 *
 * Direct I/O when the storage can, so that nothing is cached twice and a
 * matched request moves between the client's pages and the storage with no
 * copy at all.  FLUSH is fdatasync, FUA is RWF_DSYNC.  The backing is locked
 * (flock), so that two servers do not write to one file.
 *
 * The mem target is this one on a memfd: target_mem.c.
 */
#include "target_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/log.h"
#include "queue.h"
#include "target.h"

/* What direct I/O needs where the kernel does not say (before 6.1). */
#define DIRECT_ALIGN_DEFAULT 4096U

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

/* ---- opening ---- */

static int try_open(const struct target *target, int flags)
{
	int fd = open(target->path, flags | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Read-write with direct I/O if possible, then less of both. */
static int open_backing(struct target *target, bool *ret_direct)
{
	int access = target->read_only ? O_RDONLY : O_RDWR;
	int fd;

	*ret_direct = !target->buffered;
	fd = try_open(target, access | (*ret_direct ? O_DIRECT : 0));
	if (fd == -EINVAL && *ret_direct) {
		*ret_direct = false;
		fd = try_open(target, access);
	}
	if ((fd == -EROFS || fd == -EACCES || fd == -EPERM) && access == O_RDWR)
		return log_error(
			fd, "%s cannot be opened for writing (--read-only serves it read-only)",
			target->path);
	if (fd < 0)
		return log_error(fd, "%s", target->path);
	return fd;
}

static int lock_backing(const struct target *target)
{
	int ret;

	if (flock(target->fd, (target->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
		return 0;
	ret = -errno;
	if (ret == -EWOULDBLOCK)
		return log_error(-EBUSY, "%s is in use by another server", target->path);
	return log_error(ret, "%s: lock", target->path);
}

static int block_device_size(struct target *target, uint32_t *ret_block_size)
{
	uint64_t bytes = 0;
	int sector = 0;
	int read_only = 0;

	if (ioctl(target->fd, BLKGETSIZE64, &bytes) < 0 ||
	    ioctl(target->fd, BLKSSZGET, &sector) < 0)
		return -errno;
	target->size = bytes;
	if (ioctl(target->fd, BLKROGET, &read_only) == 0 && read_only)
		target->read_only = true;
	*ret_block_size = (uint32_t)sector;
	return 0;
}

/* Alignment that direct I/O needs: for offsets (at least the block size) and memory. */
static void direct_alignment(const struct target *target, uint32_t *offset_align,
			     uint32_t *memory_align)
{
	struct statx stx = { 0 };

	*offset_align = *memory_align = DIRECT_ALIGN_DEFAULT;
#ifdef STATX_DIOALIGN
	if (statx(target->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 ||
	    !(stx.stx_mask & STATX_DIOALIGN))
		return;
	/* Zero with the mask set: O_DIRECT is accepted, but is buffered I/O. */
	*offset_align = stx.stx_dio_offset_align ? stx.stx_dio_offset_align : 1;
	*memory_align = stx.stx_dio_mem_align ? stx.stx_dio_mem_align : 1;
#endif
}

static int examine(struct target *target, bool direct)
{
	uint32_t minimum = 512;
	uint32_t offset_align = 1;
	struct stat st;
	int ret;

	if (fstat(target->fd, &st) < 0)
		return log_error(-errno, "%s", target->path);
	if (S_ISBLK(st.st_mode)) {
		ret = block_device_size(target, &minimum);
		if (ret)
			return log_error(ret, "%s: ask its size", target->path);
	} else if (S_ISREG(st.st_mode)) {
		target->size = (uint64_t)st.st_size;
	} else {
		return log_error(-ENOTBLK, "%s is neither a regular file nor a block device",
				 target->path);
	}
	target->memory_align = 1;
	if (direct)
		direct_alignment(target, &offset_align, &target->memory_align);
	if (offset_align > minimum)
		minimum = offset_align;
	if (minimum > 4096)
		return log_error(
			-EINVAL,
			"%s needs I/O in units of %u bytes, more than 4096; try --buffered",
			target->path, minimum);
	if (!target->block_size)
		target->block_size = minimum;
	if (target->block_size < minimum)
		return log_error(-EINVAL, "--block-size %u is less than the %u bytes that %s needs",
				 target->block_size, minimum, target->path);
	return 0;
}

static int file_open(struct target *target)
{
	bool direct = target->fd >= 0 && (fcntl(target->fd, F_GETFL) & O_DIRECT);
	int ret;

	if (target->fd < 0)
		target->fd = open_backing(target, &direct);
	if (target->fd < 0)
		return target->fd;
	ret = examine(target, direct);
	if (ret)
		return ret;
	ret = lock_backing(target);
	if (ret)
		return ret;
	target->size -= target->size % target->block_size;
	if (!target->size)
		return log_error(-EINVAL, "%s is smaller than one block of %u bytes", target->path,
				 target->block_size);
	target->volatile_cache = true;
	target->discard = !target->read_only;
	return 0;
}

/* The file is its owner's to extend. */
static int file_grow(struct target *target, uint64_t *size)
{
	uint64_t bytes = 0;
	struct stat st;

	if (*size)
		return -EINVAL;
	if (fstat(target->fd, &st) < 0)
		return -errno;
	if (S_ISREG(st.st_mode))
		bytes = (uint64_t)st.st_size;
	else if (ioctl(target->fd, BLKGETSIZE64, &bytes) < 0)
		return -errno;
	*size = bytes - bytes % target->block_size;
	return 0;
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
	.open = file_open,
	.grow = file_grow,
	.submit = target_file_submit,
	.cqe = target_file_cqe,
	.close = target_file_close,
};
