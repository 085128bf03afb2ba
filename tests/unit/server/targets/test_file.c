/* SPDX-License-Identifier: MIT */
/*
 * The file engine on a scripted ring: what it queues is done on a real file, but in pieces,
 * late, in any order, interrupted, or refused, as the script says.  The file's contents and
 * what each request ends with are compared with a plain model.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/uapi.h"
#include "server/targets/file.h"
#include "tests/unit/cmocka_all.h"

#define FILE_SIZE (1U << 20)
#define NR 8U /* requests at once */
#define MAX_IO (64U << 10)

struct pending {
	struct ublkzc_request *rq;
	struct io_uring_sqe sqe;
};

/* What the storage does with an operation: all of it, or at most so many bytes, or an errno. */
struct outcome {
	int error;
	uint32_t most; /* bytes; 0: no limit */
};

static struct {
	int fd;
	struct pending pending[NR + 1];
	unsigned int nr_pending;
	unsigned int nr_queued; /* in all */
	struct ublkzc_request requests[NR];
	struct iovec pieces[NR][8];
	uint8_t *data[NR];
	int results[NR];
	unsigned int nr_completed[NR];
	uint8_t *model;
} ring;

/* ---- the queue, as far as a target sees it ---- */

static struct io_uring_sqe *host_sqe(struct ublkzc_request *rq)
{
	struct pending *p = &ring.pending[ring.nr_pending++];

	assert_true(ring.nr_pending <= NR);
	ring.nr_queued++;
	memset(p, 0, sizeof(*p));
	p->rq = rq;
	return &p->sqe;
}

static void host_complete(struct ublkzc_request *rq, int res)
{
	ring.results[rq->tag] = res;
	ring.nr_completed[rq->tag]++;
}

/* Of every second request the ring has pinned the memory. */
static int host_fixed(struct ublkzc_request *rq)
{
	return rq->tag % 2 ? 100 + (int)rq->tag : -1;
}

static const struct ublkzc_host host = {
	.size = sizeof(host),
	.complete = host_complete,
	.sqe = host_sqe,
	.fixed = host_fixed,
};

/* ---- the storage ---- */

static bool is_fixed(const struct io_uring_sqe *sqe)
{
	return sqe->opcode == IORING_OP_READ_FIXED || sqe->opcode == IORING_OP_WRITE_FIXED;
}

static ssize_t move(const struct io_uring_sqe *sqe, uint32_t most)
{
	const void *addr = (const void *)(uintptr_t)sqe->addr;
	struct iovec iov[UAPI_SHMEM_SEGS_MAX];
	int nr = 1;

	if (sqe->opcode == IORING_OP_READ || sqe->opcode == IORING_OP_WRITE || is_fixed(sqe)) {
		iov[0] = (struct iovec){ (void *)(uintptr_t)sqe->addr, sqe->len };
	} else {
		nr = (int)sqe->len;
		memcpy(iov, addr, (size_t)nr * sizeof(*iov));
	}
	for (int i = 0; most && i < nr; i++) {
		if (iov[i].iov_len < most) {
			most -= (uint32_t)iov[i].iov_len;
			continue;
		}
		iov[i].iov_len = most;
		nr = i + 1;
	}
	if (sqe->opcode == IORING_OP_READ || sqe->opcode == IORING_OP_READV ||
	    sqe->opcode == IORING_OP_READ_FIXED)
		return preadv(ring.fd, iov, nr, (off_t)sqe->off);
	return pwritev(ring.fd, iov, nr, (off_t)sqe->off);
}

static int do_it(const struct pending *p, const struct outcome *o)
{
	const struct io_uring_sqe *sqe = &p->sqe;
	int ret;

	assert_true(sqe->flags == IOSQE_FIXED_FILE);
	assert_int_equal(sqe->fd, UBLKZC_FILE);
	if (o->error)
		return o->error;
	switch (sqe->opcode) {
	case IORING_OP_FSYNC:
		assert_int_equal(sqe->fsync_flags, IORING_FSYNC_DATASYNC);
		return 0;
	case IORING_OP_FALLOCATE:
		ret = fallocate(ring.fd, (int)sqe->len, (off_t)sqe->off, (off_t)sqe->addr);
		return ret < 0 ? -errno : 0;
	default:
		if (p->rq->state == 0) /* else zeroes of its own are written */
			assert_int_equal(is_fixed(sqe), p->rq->nr_iov == 1 && p->rq->tag % 2);
		if (is_fixed(sqe))
			assert_int_equal(sqe->buf_index, 100 + p->rq->tag);
		if (p->rq->op == UBLKZC_WRITE)
			assert_int_equal(sqe->rw_flags, p->rq->fua ? RWF_DSYNC : 0);
		return (int)move(sqe, o->most);
	}
}

/* One of the operations that are under way ends. */
static void end_one(unsigned int i, const struct outcome *o)
{
	struct pending p = ring.pending[i];
	int res;

	assert_true(i < ring.nr_pending);
	ring.pending[i] = ring.pending[--ring.nr_pending];
	res = do_it(&p, o);
	file_cqe(p.rq, res);
}

static void end_all(const struct outcome *o)
{
	while (ring.nr_pending)
		end_one(0, o);
}

/* ---- requests ---- */

static struct ublkzc_request *prepare(unsigned int tag, enum ublkzc_op op, uint64_t offset, uint32_t len)
{
	struct ublkzc_request *rq = &ring.requests[tag];

	*rq = (struct ublkzc_request){
		.tag = tag,
		.op = op,
		.offset = offset,
		.len = len,
		.iov = ring.pieces[tag],
		.nr_iov = op == UBLKZC_READ || op == UBLKZC_WRITE,
	};
	ring.pieces[tag][0] = (struct iovec){ ring.data[tag], len };
	ring.nr_completed[tag] = 0;
	ring.results[tag] = 1;
	return rq;
}

/* The same data, in @nr pieces of unequal length. */
static void scatter(struct ublkzc_request *rq, unsigned int nr)
{
	uint32_t done = 0;

	for (unsigned int i = 0; i < nr; i++) {
		uint32_t len = i + 1 < nr ? (rq->len - done) / 3 : rq->len - done;

		rq->iov[i] = (struct iovec){ ring.data[rq->tag] + done, len };
		done += len;
	}
	rq->nr_iov = nr;
}

static void fill(uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)rand();
}

static void expect_completed(unsigned int tag, int res)
{
	assert_int_equal(ring.nr_completed[tag], 1);
	assert_int_equal(ring.results[tag], res);
}

static void expect_file(void)
{
	uint8_t *now = malloc(FILE_SIZE);

	assert_int_equal(pread(ring.fd, now, FILE_SIZE, 0), FILE_SIZE);
	assert_memory_equal(now, ring.model, FILE_SIZE);
	free(now);
}

static int set_up(void **state)
{
	(void)state;
	memset(&ring, 0, sizeof(ring));
	srand(1);
	ublkzc_host = &host;
	ring.fd = memfd_create("storage", MFD_CLOEXEC);
	assert_true(ring.fd >= 0);
	ring.model = malloc(FILE_SIZE);
	fill(ring.model, FILE_SIZE);
	assert_int_equal(write(ring.fd, ring.model, FILE_SIZE), FILE_SIZE);
	for (unsigned int i = 0; i < NR; i++)
		ring.data[i] = malloc(MAX_IO);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < NR; i++)
		free(ring.data[i]);
	free(ring.model);
	close(ring.fd);
	return 0;
}

/* ---- tests ---- */

static void short_transfers_go_on_until_the_request_is_whole(void **state)
{
	static const uint32_t most[] = { 1, 511, 512, 4096, 5000, 65535 };
	(void)state;

	for (unsigned int i = 0; i < 6; i++) {
		for (unsigned int pieces = 0; pieces <= 3; pieces += 3) {
			struct ublkzc_request *rq = prepare(0, UBLKZC_WRITE, 4096 * i + 512, 8192);

			fill(ring.data[0], rq->len);
			memcpy(ring.model + rq->offset, ring.data[0], rq->len);
			rq->fua = true;
			if (pieces)
				scatter(rq, pieces);
			file_submit(rq);
			end_all(&(struct outcome){ .most = most[i] });
			expect_completed(0, 0);
			expect_file();

			rq = prepare(1, UBLKZC_READ, 4096 * i + 512, 8192);
			memset(ring.data[1], 0, rq->len);
			if (pieces)
				scatter(rq, pieces);
			file_submit(rq);
			end_all(&(struct outcome){ .most = most[i] });
			expect_completed(1, 0);
			assert_memory_equal(ring.data[1], ring.model + 4096 * i + 512, 8192);
		}
	}
}

static void what_is_interrupted_or_busy_is_asked_again(void **state)
{
	static const int errors[] = { -EINTR, -EAGAIN };
	(void)state;

	for (unsigned int i = 0; i < 2; i++) {
		for (unsigned int pieces = 0; pieces <= 3; pieces += 3) {
			struct ublkzc_request *rq = prepare(0, UBLKZC_WRITE, 0, 4096);

			fill(ring.data[0], 4096);
			memcpy(ring.model, ring.data[0], 4096);
			if (pieces)
				scatter(rq, pieces);
			file_submit(rq);
			end_one(0, &(struct outcome){ .error = errors[i] });
			end_one(0, &(struct outcome){ .most = 1000 });
			end_one(0, &(struct outcome){ .error = errors[i] });
			assert_int_equal(ring.nr_completed[0], 0);
			end_one(0, &(struct outcome){ 0 });
			expect_completed(0, 0);
			expect_file();
		}
	}
	for (enum ublkzc_op op = UBLKZC_FLUSH; op <= UBLKZC_WRITE_ZEROES; op++) {
		file_submit(prepare(0, op, 0, op == UBLKZC_FLUSH ? 0 : 4096));
		end_one(0, &(struct outcome){ .error = -EINTR });
		assert_int_equal(ring.nr_completed[0], 0);
		end_one(0, &(struct outcome){ 0 });
		expect_completed(0, 0);
	}
}

static void an_error_ends_the_request_and_is_passed_on(void **state)
{
	static const int errors[] = { -EIO, -ENOSPC, -EREMOTEIO, -ENOMEM };
	(void)state;

	for (unsigned int i = 0; i < 4; i++) {
		for (enum ublkzc_op op = UBLKZC_READ; op <= UBLKZC_WRITE_ZEROES; op++) {
			file_submit(prepare(0, op, 0, op == UBLKZC_FLUSH ? 0 : 8192));
			if (op == UBLKZC_READ || op == UBLKZC_WRITE)
				end_one(0, &(struct outcome){ .most = 4096 });
			end_one(0, &(struct outcome){ .error = errors[i] });
			expect_completed(0, errors[i]);
			assert_int_equal(ring.nr_pending, 0);
		}
	}
	/* Discarding is a hint: that it is not supported is said, and not made up for. */
	file_submit(prepare(0, UBLKZC_DISCARD, 0, 4096));
	end_one(0, &(struct outcome){ .error = -EOPNOTSUPP });
	expect_completed(0, -EOPNOTSUPP);
}

static void storage_that_was_cut_short_is_an_error(void **state)
{
	(void)state;
	assert_int_equal(ftruncate(ring.fd, 4096 + 100), 0);
	file_submit(prepare(0, UBLKZC_READ, 4096, 4096));
	end_all(&(struct outcome){ 0 });
	expect_completed(0, -EIO);
	file_submit(prepare(0, UBLKZC_READ, 8192, 4096));
	end_all(&(struct outcome){ 0 });
	expect_completed(0, -EIO);
}

static void zeroes_are_written_where_they_cannot_be_punched(void **state)
{
	static const struct outcome outcomes[] = {
		{ 0 },
		{ .error = -EINTR },
		{ .most = 1000 },
		{ .error = -EAGAIN },
	};
	const uint32_t len = 600 << 10; /* more than is written at once */
	struct ublkzc_request *rq = prepare(0, UBLKZC_WRITE_ZEROES, 8192, len);
	(void)state;

	rq->no_unmap = true;
	file_submit(rq);
	assert_int_equal(ring.pending[0].sqe.len, FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE);
	end_one(0, &(struct outcome){ .error = -EOPNOTSUPP });
	for (unsigned int i = 0; ring.nr_pending; i++)
		end_one(0, &outcomes[i < 4 ? i : 0]);
	expect_completed(0, 0);
	memset(ring.model + 8192, 0, len);
	expect_file();
	/* The next request of this tag is one like any other. */
	file_submit(prepare(0, UBLKZC_WRITE_ZEROES, 0, 4096));
	assert_int_equal(ring.pending[0].sqe.opcode, IORING_OP_FALLOCATE);
	assert_int_equal(ring.pending[0].sqe.len, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE);
	end_all(&(struct outcome){ 0 });
	expect_completed(0, 0);
	memset(ring.model, 0, 4096);
	expect_file();
	file_submit(prepare(0, UBLKZC_WRITE_ZEROES, 0, 4096));
	end_one(0, &(struct outcome){ .error = -EOPNOTSUPP });
	end_one(0, &(struct outcome){ .error = -ENOSPC });
	expect_completed(0, -ENOSPC);
}

static struct outcome any_outcome(void)
{
	switch (rand() % 4) {
	case 0:
		return (struct outcome){ .error = -EINTR };
	case 1:
		return (struct outcome){ .most = 1 + (uint32_t)rand() % MAX_IO };
	default:
		return (struct outcome){ 0 };
	}
}

/* Each tag has a part of the file of its own, so that their order does not matter. */
static void start_any(unsigned int tag)
{
	const uint32_t share = FILE_SIZE / NR;
	uint32_t len = 512 * (1 + (uint32_t)rand() % (MAX_IO / 512));
	uint64_t offset = tag * share + 512 * ((uint64_t)rand() % ((share - len) / 512 + 1));
	static const enum ublkzc_op ops[] = { UBLKZC_READ, UBLKZC_WRITE, UBLKZC_WRITE, UBLKZC_WRITE_ZEROES };
	struct ublkzc_request *rq = prepare(tag, ops[rand() % 4], offset, len);

	if (rq->op == UBLKZC_WRITE) {
		fill(ring.data[tag], len);
		memcpy(ring.model + offset, ring.data[tag], len);
		rq->fua = rand() % 2;
	} else if (rq->op == UBLKZC_WRITE_ZEROES) {
		memset(ring.model + offset, 0, len);
		rq->no_unmap = rand() % 2;
	}
	if (rq->op != UBLKZC_WRITE_ZEROES && rand() % 2)
		scatter(rq, 1 + (unsigned int)rand() % 5);
	file_submit(rq);
}

static void requests_at_once_do_not_disturb_each_other(void **state)
{
	bool busy[NR] = { false };
	(void)state;

	for (unsigned int turn = 0; turn < 20000; turn++) {
		unsigned int tag = (unsigned int)rand() % NR;
		struct outcome o = any_outcome();
		const struct ublkzc_request *rq = &ring.requests[tag];

		if (ring.nr_pending)
			end_one((unsigned int)rand() % ring.nr_pending, &o);
		if (busy[tag] && !ring.nr_completed[tag])
			continue;
		if (busy[tag]) {
			/* The memory behind the target may know no ZERO_RANGE: written then. */
			expect_completed(tag, 0);
			if (rq->op == UBLKZC_READ)
				assert_memory_equal(ring.data[tag], ring.model + rq->offset,
						    rq->len);
		}
		start_any(tag);
		busy[tag] = true;
	}
	end_all(&(struct outcome){ 0 });
	for (unsigned int tag = 0; tag < NR; tag++)
		if (busy[tag])
			expect_completed(tag, 0);
	expect_file();
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(short_transfers_go_on_until_the_request_is_whole),
		T(what_is_interrupted_or_busy_is_asked_again),
		T(an_error_ends_the_request_and_is_passed_on),
		T(storage_that_was_cut_short_is_an_error),
		T(zeroes_are_written_where_they_cannot_be_punched),
		T(requests_at_once_do_not_disturb_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
