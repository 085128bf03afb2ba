/* SPDX-License-Identifier: MIT */
/*
 * request.c - see request.h.
 *
 * A matched request (UAPI_IO_F_SHMEM_ZC) has its data in a registered
 * buffer; every other one takes the copy path of UBLK_F_USER_COPY: bytes of a
 * WRITE are read from /dev/ublkcN into the tag's bounce buffer first, bytes
 * of a READ are written there last.  That works for matched requests as well, so
 * one that names a buffer which the registry does not show is simply copied:
 * the driver matches before its answer to the registration reaches us, and still
 * matches what a dead server had registered.  Where the driver can, it lists the
 * pieces of a request that is scattered over registered memory (segments.h).
 *
 * The driver takes a completion of a matched request as full success, so a
 * request is finished whole or failed, never completed short.
 *
 * Registered memory is touched by the kernel only, never by a load or store
 * of ours: its owner may punch holes in it, and then a system call says
 * EFAULT where an access would be a SIGBUS.
 */
#include "request.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512ULL

/* ---- copying ---- */

static uint8_t *bounce_of(struct queue *q, const struct request *rq)
{
	return q->bounce + (size_t)rq->io.tag * q->config.max_io;
}

static off_t user_copy_pos(const struct queue *q, const struct request *rq)
{
	return UBLKSRV_IO_BUF_OFFSET + (off_t)(((uint64_t)q->config.id << UBLK_QID_OFF) |
					       ((uint64_t)rq->io.tag << UBLK_TAG_OFF));
}

/* Move all of @rq's bytes between bounce buffer and request pages. */
static int user_copy(struct queue *q, struct request *rq)
{
	uint8_t *ours = bounce_of(q, rq);
	off_t pos = user_copy_pos(q, rq);
	uint32_t done = 0;

	while (done < rq->io.len) {
		size_t left = rq->io.len - done;
		ssize_t n = rq->io.op == UBLKZC_WRITE
				    ? pread(q->config.char_fd, ours + done, left, pos + done)
				    : pwrite(q->config.char_fd, ours + done, left, pos + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += (uint32_t)n;
	}
	return 0;
}

/* Copy between our memory and registered memory without ever faulting. */
static int client_copy(void *ours, void *theirs, size_t len, bool to_client)
{
	struct iovec local = { .iov_base = ours, .iov_len = len };
	struct iovec remote = { .iov_base = theirs, .iov_len = len };
	ssize_t n = to_client ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0)
			      : process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EFAULT;
}

static void count(struct queue *q, const struct request *rq, int res)
{
	struct queue_counters *c = q->config.counters;
	struct op_counters *op = rq->io.op == UBLKZC_WRITE ? &c->write : &c->read;

	switch (rq->io.op) {
	case UBLKZC_READ:
	case UBLKZC_WRITE:
		counter_add(rq->zero_copy ? &op->zero_copy_requests : &op->copied_requests, 1);
		counter_add(rq->zero_copy ? &op->zero_copy_bytes : &op->copied_bytes, rq->io.len);
		if (!rq->zero_copy)
			copied_add(q->config.copied, &q->copied_left, rq->io.offset, rq->io.len);
		if (rq->bounced)
			counter_add(&c->bounced, 1);
		if (rq->segments)
			counter_add(&c->scattered, 1);
		if (rq->fixed && rq->zero_copy)
			counter_add(&c->fixed, 1);
		break;
	case UBLKZC_FLUSH:
		counter_add(&c->flushes, 1);
		break;
	case UBLKZC_DISCARD:
		counter_add(&c->discards, 1);
		break;
	case UBLKZC_WRITE_ZEROES:
		counter_add(&c->write_zeroes, 1);
		break;
	}
	/* To discard is a hint, which storage may not take. */
	if (res < 0 && !(rq->io.op == UBLKZC_DISCARD && res == -EOPNOTSUPP))
		counter_add(&c->errors, 1);
}

/* Has memory been put where clients' memory was, since @rq's was looked up?  Then it may be @rq's.
 */
static bool is_rescued(const struct queue *q, const struct request *rq)
{
	return rq->rescues != registry_rescues(q->config.registry);
}

/* What was read, from our memory to where it belongs. */
static int deliver(struct queue *q, struct request *rq)
{
	int res = client_copy(bounce_of(q, rq), rq->client, rq->io.len, true);

	return !res && is_rescued(q, rq) ? -EFAULT : res;
}

int request_finish(struct queue *q, struct request *rq, int res)
{
	if (!res && rq->io.op == UBLKZC_READ) {
		if (!rq->zero_copy)
			res = user_copy(q, rq);
		else if (rq->bounced)
			res = deliver(q, rq);
		/* There is no page any more in registered memory, but the request has its own. */
		if (res == -EFAULT && rq->zero_copy) {
			rq->zero_copy = rq->bounced = false;
			counter_add(&q->config.counters->copied_unknown_buffer, 1);
			res = user_copy(q, rq);
		}
	}
	count(q, rq, res);
	return res;
}

/* ---- where the data is ---- */

/* Why a request's data is copied, as far as the server can know. */
static counter_t *copied_because(struct queue *q, bool matched)
{
	struct queue_counters *c = q->config.counters;

	if (matched)
		return &c->copied_unknown_buffer;
	if (!q->config.shmem_zc)
		return &c->copied_no_feature;
	if (!registry_any(q->config.registry))
		return &c->copied_nothing_registered;
	return &c->copied_other_memory;
}

static void set_piece(struct request *rq, uint8_t *data)
{
	rq->piece = (struct iovec){ data, rq->io.len };
	rq->io.iov = &rq->piece;
	rq->io.nr_iov = 1;
}

static int prepare_copied(struct queue *q, struct request *rq)
{
	rq->zero_copy = false;
	rq->bounced = false;
	rq->fixed = false;
	rq->segments = NULL;
	set_piece(rq, bounce_of(q, rq));
	return rq->io.op == UBLKZC_WRITE ? user_copy(q, rq) : 0;
}

/* Where the storage wants it aligned better, the data goes through our memory. */
static int prepare_matched(struct queue *q, struct request *rq, unsigned int index, uint8_t *data)
{
	rq->zero_copy = true;
	rq->index = index;
	rq->bounced = ((uintptr_t)data & (q->config.memory_align - 1)) != 0;
	set_piece(rq, rq->bounced ? bounce_of(q, rq) : data);
	if (!rq->bounced)
		return 0;
	rq->client = data;
	return rq->io.op == UBLKZC_WRITE ? client_copy(bounce_of(q, rq), data, rq->io.len, false)
					 : 0;
}

/* What the storage cannot take as it is, is copied: this is too rare to gather it ourselves. */
static int prepare_listed(struct queue *q, struct request *rq, uint64_t nr)
{
	uint32_t align = q->config.memory_align;
	struct segments *s = &q->segments[rq->io.tag];
	counter_t *why = &q->config.counters->copied_misaligned;

	if (!segments_find(s, nr, q->config.registry, rq->io.len, rq->io.op == UBLKZC_READ))
		why = copied_because(q, true);
	else if (segments_aligned(s, align, align > 1 ? q->config.target->block_size : 1))
		why = NULL;
	if (why) {
		counter_add(why, 1);
		return prepare_copied(q, rq);
	}
	rq->zero_copy = true;
	rq->segments = s;
	rq->io.iov = s->iov;
	rq->io.nr_iov = s->nr;
	return 0;
}

static int prepare(struct queue *q, struct request *rq, const struct ublksrv_io_desc *iod)
{
	bool matched = (iod->op_flags & UAPI_IO_F_SHMEM_ZC) != 0;
	uint8_t *data;

	/* Before it is looked up: what is rescued later is noticed. */
	rq->rescues = registry_rescues(q->config.registry);
	if (matched) {
		data = registry_find(q->config.registry, iod->addr, rq->io.len,
				     rq->io.op == UBLKZC_READ);
		if (data)
			return prepare_matched(q, rq, uapi_shmem_index(iod->addr), data);
	}
	if (q->segments && (iod->op_flags & UAPI_IO_F_SHMEM_SEGS))
		return prepare_listed(q, rq, iod->addr);
	counter_add(copied_because(q, matched), 1);
	if (!matched)
		registry_missed(q->config.registry);
	if (registry_unanswered(q->config.registry))
		counter_add(&q->config.counters->copied_unanswered_bytes, rq->io.len);
	return prepare_copied(q, rq);
}

/* ---- what is asked ---- */

static int decode_op(const struct ublksrv_io_desc *iod, struct request *rq)
{
	switch (ublksrv_get_op(iod)) {
	case UBLK_IO_OP_READ:
		rq->io.op = UBLKZC_READ;
		return 0;
	case UBLK_IO_OP_WRITE:
		rq->io.op = UBLKZC_WRITE;
		return 0;
	case UBLK_IO_OP_FLUSH:
		rq->io.op = UBLKZC_FLUSH;
		return 0;
	case UBLK_IO_OP_DISCARD:
		rq->io.op = UBLKZC_DISCARD;
		return 0;
	case UBLK_IO_OP_WRITE_ZEROES:
		rq->io.op = UBLKZC_WRITE_ZEROES;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* What is the engine's, as it finds it. */
static void begin_anew(struct request *rq)
{
	rq->io.iov = NULL;
	rq->io.nr_iov = 0;
	rq->io.done = 0;
	rq->io.state = 0;
	rq->io.priv = NULL;
}

/* Everything the kernel says about a request is checked against what we set up. */
static int decode(struct queue *q, const struct ublksrv_io_desc *iod, struct request *rq)
{
	uint64_t len = (uint64_t)iod->nr_sectors * SECTOR;
	uint64_t offset = iod->start_sector * SECTOR;
	uint64_t size = atomic_load_explicit(q->config.size, memory_order_relaxed);
	int err = decode_op(iod, rq);
	bool has_data = rq->io.op == UBLKZC_READ || rq->io.op == UBLKZC_WRITE;

	rq->io.len = 0; /* so that a refused request counts no bytes */
	rq->zero_copy = rq->bounced = rq->fixed = false;
	rq->segments = NULL;
	if (err)
		return err;
	if (rq->io.op == UBLKZC_FLUSH)
		len = offset = 0;
	if (offset > size || len > size - offset)
		return -EIO;
	if (has_data && len > q->config.max_io)
		return -EIO;
	rq->io.fua = (iod->op_flags & UBLK_IO_F_FUA) != 0;
	rq->io.no_unmap = (iod->op_flags & UAPI_IO_F_NOUNMAP) != 0;
	rq->io.offset = offset;
	rq->io.len = (uint32_t)len;
	begin_anew(rq);
	return 0;
}

bool request_copy_instead(struct queue *q, struct request *rq, int *res)
{
	if (!rq->zero_copy || (*res != -EFAULT && !is_rescued(q, rq)))
		return false;
	begin_anew(rq);
	/* Each counts once, as what it was in the end. */
	counter_add(&q->config.counters->copied_unknown_buffer, 1);
	*res = prepare_copied(q, rq);
	return *res == 0;
}

int request_begin(struct queue *q, struct request *rq, const struct ublksrv_io_desc *iod)
{
	int err = decode(q, iod, rq);

	if (!err && (rq->io.op == UBLKZC_READ || rq->io.op == UBLKZC_WRITE))
		err = prepare(q, rq, iod);
	return err;
}
