/* SPDX-License-Identifier: MIT */
/*
 * A hardware queue between a scripted driver and a scripted engine, on a ring that is not the
 * kernel's.  The driver is a memfd where /dev/ublkcN would be: the descriptors of its
 * requests at the beginning, and the requests' pages where UBLK_F_USER_COPY has them.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/memory/rescue.h"
#include "server/queue/request.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/server/fake_ring.h"

#define DEPTH 8U
#define MAX_IO (64U << 10)
#define DISK (1U << 20)
#define SECTOR 512U
#define CLIENT (256U << 10) /* bytes of registered memory, index 5 */
#define INDEX 5U

/* STALE: matched, but the registry has no such buffer; HOLED: matched, but its owner has taken
 * the pages out of registered memory since, and only the request has them.  TORN: it takes them out
 * while the engine's own code touches them. */
enum where { COPIED, MATCHED, STALE, HOLED, TORN };

struct io {
	bool ours; /* the driver has given it to the server */
	enum ublkzc_op op;
	enum where where;
	uint64_t offset;
	uint32_t len;
	uint32_t at; /* in registered memory */
	bool invalid;
	bool refused; /* by the target */
};

static struct {
	int char_fd, done_fd;
	struct ublksrv_io_desc *descriptors;
	struct io io[DEPTH];
	bool fetched[DEPTH];
	bool stopping;
	cpu_set_t cpus;		       /* that the driver says requests come from */
	cpu_set_t served_by;	       /* where the thread may be, when it fetches */
	int refuse_tag;		       /* FETCH of it is refused; -1: none */
	unsigned int nr_left, nr_done; /* requests */
	unsigned int nr_at_once, most_at_once;
	unsigned int nr_waits;
	/* the target's */
	uint8_t disk[DISK];
	uint8_t expected[DISK];
	uint64_t queued[DEPTH]; /* user_data */
	unsigned int nr_queued;
	unsigned int nr_submitted;
	uint8_t *client;
	struct buffer_view views[2]; /* of which one is published, or none */
	unsigned int view;
	bool fixed; /* the engine asks for fixed buffers, which come and go */
	bool wanted_no_more, withdrawn;
	unsigned int nr_withdrawals, nr_fixed;
	struct registry *registry;
	struct queue_counters *counters;
	struct copied *copied;
	struct ublkzc_target target;
	uint32_t memory_align;
	_Atomic uint64_t size;
	int client_fd; /* memfd of registered memory */
	bool tear;     /* requests come one at a time, and their memory goes */
	unsigned int nr_torn;
	/* the engine's thread */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct ublkzc_request *elsewhere[DEPTH];
	unsigned int nr_elsewhere, nr_ended_elsewhere;
	bool thread_stops;
	/* of the queue: what wakes it */
	int ended_fd;
	uint64_t ended_data;
	bool awaits_ended;
	struct queue queue;
} t;

static off_t pages_of(unsigned int tag)
{
	return UBLKSRV_IO_BUF_OFFSET + ((off_t)tag << UBLK_TAG_OFF);
}

/* Bytes that are nowhere else; rand() for each of them would be most of this test's time. */
static void fill(uint8_t *to, size_t len)
{
	uint64_t x = (uint64_t)rand() + 1;

	for (size_t i = 0; i < len; i += sizeof(x)) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		memcpy(to + i, &x, len - i < sizeof(x) ? len - i : sizeof(x));
	}
}

/* ---- the engine ---- */

static void finish(struct ublkzc_request *rq)
{
	const struct request *internal = (const struct request *)rq;
	struct io *io = &t.io[rq->tag];
	bool has_data = rq->op == UBLKZC_READ || rq->op == UBLKZC_WRITE;

	if (io->where == HOLED && internal->zero_copy && has_data) {
		ublkzc_complete(rq, -EFAULT);
		return;
	}
	if (io->where == TORN && internal->zero_copy && has_data) {
		assert_int_equal(ftruncate(t.client_fd, 0), 0);
		t.nr_torn++;
	}
	if (io->refused) {
		ublkzc_complete(rq, -EREMOTEIO);
		return;
	}
	if (rq->op == UBLKZC_READ)
		memcpy(rq->iov->iov_base, t.disk + rq->offset, rq->len);
	else if (rq->op == UBLKZC_WRITE)
		memcpy(t.disk + rq->offset, rq->iov->iov_base, rq->len);
	ublkzc_complete(rq, 0);
}

/* Ends requests that the queue's thread has begun. */
static void *elsewhere(void *arg)
{
	bool stops = false;

	(void)arg;
	while (!stops) {
		struct ublkzc_request *rq = NULL;

		pthread_mutex_lock(&t.lock);
		while (!t.nr_elsewhere && !t.thread_stops)
			pthread_cond_wait(&t.more, &t.lock);
		if (t.nr_elsewhere)
			rq = t.elsewhere[--t.nr_elsewhere];
		stops = !rq;
		pthread_mutex_unlock(&t.lock);
		if (rq)
			finish(rq);
	}
	return NULL;
}

static void end_elsewhere(struct ublkzc_request *rq)
{
	pthread_mutex_lock(&t.lock);
	t.elsewhere[t.nr_elsewhere++] = rq;
	t.nr_ended_elsewhere++;
	pthread_cond_signal(&t.more);
	pthread_mutex_unlock(&t.lock);
}

static int engine_queue_open(struct ublkzc_queue *q)
{
	q->priv = &t;
	return 0;
}

/* What the ring has pinned under that index is this request's memory, as it is mapped now. */
static void check_fixed(struct ublkzc_request *rq)
{
	const struct io *io = &t.io[rq->tag];
	int entry = ublkzc_fixed(rq);
	const struct iovec *iov;

	if (entry < 0)
		return;
	t.nr_fixed++;
	iov = &fake_ring.table[entry];
	assert_true(io->where == MATCHED || io->where == HOLED);
	assert_ptr_equal(iov->iov_base, t.views[t.view].base);
	assert_int_equal(iov->iov_len, CLIENT);
	assert_ptr_equal(rq->iov->iov_base, t.client + io->at);
}

static void engine_submit(struct ublkzc_request *rq)
{
	const struct io *io = &t.io[rq->tag];
	struct io_uring_sqe *sqe;

	t.nr_submitted++;
	assert_true(io->ours && !io->invalid);
	assert_ptr_equal(rq->queue->priv, &t);
	assert_int_equal(rq->op, io->op);
	assert_int_equal(rq->offset, io->op == UBLKZC_FLUSH ? 0 : io->offset);
	assert_true(!rq->done && !rq->state && !rq->priv);
	rq->state = 1;
	if (io->op == UBLKZC_READ || io->op == UBLKZC_WRITE) {
		assert_int_equal(rq->len, io->len);
		assert_int_equal(rq->nr_iov, 1);
		assert_int_equal(rq->iov->iov_len, io->len);
		assert_int_equal((uintptr_t)rq->iov->iov_base % t.memory_align, 0);
		if (io->where == MATCHED && io->at % t.memory_align == 0)
			assert_ptr_equal(rq->iov->iov_base, t.client + io->at);
	}
	if (t.fixed && (io->op == UBLKZC_READ || io->op == UBLKZC_WRITE))
		check_fixed(rq);
	if (rand() % 4 == 0) {
		finish(rq); /* at once */
		return;
	}
	if (rand() % 4 == 0) {
		end_elsewhere(rq);
		return;
	}
	sqe = ublkzc_sqe(rq);
	sqe->opcode = IORING_OP_NOP;
	t.queued[t.nr_queued++] = sqe->user_data;
}

static void engine_cqe(struct ublkzc_request *rq, int res)
{
	assert_int_equal(res, 0);
	finish(rq);
}

static const struct ublkzc_engine engine = {
	.size = sizeof(engine),
	.flags = UBLKZC_TOUCHES_DATA,
	.name = "script",
	.queue_open = engine_queue_open,
	.submit = engine_submit,
	.cqe = engine_cqe,
};

static const struct ublkzc_engine fixed_engine = {
	.size = sizeof(fixed_engine),
	.flags = UBLKZC_FIXED,
	.name = "script",
	.queue_open = engine_queue_open,
	.submit = engine_submit,
	.cqe = engine_cqe,
};

/* ---- the driver ---- */

static void expect_ended(unsigned int tag, int result)
{
	struct io *io = &t.io[tag];
	bool has_data = io->op == UBLKZC_READ || io->op == UBLKZC_WRITE;
	uint8_t got[MAX_IO];

	if (io->invalid)
		assert_int_equal(result, -EIO);
	else if (io->refused)
		assert_int_equal(result, -EREMOTEIO);
	else
		assert_int_equal(result, has_data ? (int)io->len : 0);
	if (!io->invalid && !io->refused && io->op == UBLKZC_READ) {
		if (io->where == MATCHED)
			memcpy(got, t.client + io->at, io->len);
		else
			assert_int_equal(pread(t.char_fd, got, io->len, pages_of(tag)), io->len);
		assert_memory_equal(got, t.expected + io->offset, io->len);
	}
	io->ours = false;
	t.nr_done++;
	t.nr_at_once--;
}

static void io_command(const struct io_uring_sqe *sqe)
{
	const struct ublksrv_io_cmd *cmd = (const struct ublksrv_io_cmd *)&sqe->addr3;
	bool fetch = sqe->off == UBLK_U_IO_FETCH_REQ;

	assert_int_equal(sqe->fd, t.fixed ? t.char_fd : 0);
	assert_true(sqe->flags == (t.fixed ? 0 : IOSQE_FIXED_FILE));
	assert_true(cmd->tag < DEPTH && cmd->q_id == 0);
	assert_int_equal(sqe->user_data, cmd->tag);
	assert_true(fetch || sqe->off == UBLK_U_IO_COMMIT_AND_FETCH_REQ);
	assert_int_equal(t.fetched[cmd->tag], false);
	assert_int_equal(t.io[cmd->tag].ours, !fetch);
	if (!fetch)
		expect_ended(cmd->tag, cmd->result);
	if (fetch && t.refuse_tag == cmd->tag)
		fake_ring_post(cmd->tag, -EBUSY);
	else if (t.stopping)
		fake_ring_post(cmd->tag, UBLK_IO_RES_ABORT);
	else
		t.fetched[cmd->tag] = true;
}

static void await_ended(const struct io_uring_sqe *sqe)
{
	assert_false(t.awaits_ended);
	t.ended_fd = sqe->fd;
	t.ended_data = sqe->user_data;
	t.awaits_ended = true;
}

/* What another thread has ended wakes the ring, when that likes. */
static void wake_for_ended(void)
{
	struct pollfd p = { .fd = t.ended_fd, .events = POLLIN };
	uint64_t woken;

	if (!t.awaits_ended || poll(&p, 1, 0) != 1)
		return;
	assert_int_equal(read(t.ended_fd, &woken, sizeof(woken)), sizeof(woken));
	t.awaits_ended = false;
	fake_ring_post(t.ended_data, sizeof(woken));
}

static void submitted(const struct io_uring_sqe *sqe)
{
	if (sqe->opcode == IORING_OP_URING_CMD) {
		sched_getaffinity(0, sizeof(t.served_by), &t.served_by);
		io_command(sqe);
	} else if (sqe->opcode == IORING_OP_READ) {
		await_ended(sqe);
	} else {
		assert_int_equal(sqe->opcode, IORING_OP_NOP);
	}
}

static uint32_t kernels_op(enum ublkzc_op op)
{
	static const uint32_t ops[] = {
		[UBLKZC_READ] = UBLK_IO_OP_READ,
		[UBLKZC_WRITE] = UBLK_IO_OP_WRITE,
		[UBLKZC_FLUSH] = UBLK_IO_OP_FLUSH,
		[UBLKZC_DISCARD] = UBLK_IO_OP_DISCARD,
		[UBLKZC_WRITE_ZEROES] = UBLK_IO_OP_WRITE_ZEROES,
	};

	return ops[op];
}

/* Requests of different tags are in different parts of disk and registered memory. */
static struct io any_io(unsigned int tag)
{
	const uint32_t share = DISK / DEPTH, room = CLIENT / DEPTH;
	struct io io = {
		.ours = true,
		.op = (enum ublkzc_op)(rand() % 3 ? rand() % 2 : rand() % 5),
		.where = (enum where)(rand() % 4),
		.len = SECTOR * (1 + (uint32_t)rand() % (room / SECTOR - 1)),
		.refused = rand() % 16 == 0,
	};

	if (t.tear) {
		io.where = TORN;
		io.refused = false;
	}
	io.at = tag * room + (rand() % 2 ? 0 : 4 * ((uint32_t)rand() % 64));
	io.offset = tag * share + SECTOR * ((uint64_t)rand() % ((share - io.len) / SECTOR));
	if (rand() % 16 == 0 && io.op != UBLKZC_FLUSH) {
		io.invalid = true;
		/* From beyond the end, or over it. */
		io.offset = rand() % 2 ? io.offset + DISK : DISK - io.len + SECTOR;
	}
	return io;
}

static void describe(unsigned int tag, const struct io *io)
{
	struct ublksrv_io_desc *d = &t.descriptors[tag];

	*d = (struct ublksrv_io_desc){
		.op_flags = kernels_op(io->op),
		.nr_sectors = io->op == UBLKZC_FLUSH ? 0 : io->len / SECTOR,
		.start_sector = io->op == UBLKZC_FLUSH ? 0 : io->offset / SECTOR,
	};
	if ((io->op == UBLKZC_READ || io->op == UBLKZC_WRITE) && io->where != COPIED) {
		d->op_flags |= UAPI_IO_F_SHMEM_ZC;
		d->addr = (uint64_t)(io->where == STALE ? INDEX + 1 : INDEX) << 32 | io->at;
	}
}

/* What the program did before: the pages of its request. */
static void write_data(unsigned int tag, const struct io *io)
{
	uint8_t data[MAX_IO];

	if (io->op == UBLKZC_READ && io->where == MATCHED)
		memset(t.client + io->at, 0x55, io->len);
	if (io->op != UBLKZC_WRITE)
		return;
	fill(data, io->len);
	if (io->where == MATCHED)
		memcpy(t.client + io->at, data, io->len);
	else
		assert_int_equal(pwrite(t.char_fd, data, io->len, pages_of(tag)), io->len);
	if (!io->invalid && !io->refused)
		memcpy(t.expected + io->offset, data, io->len);
}

/* A client that has memory as at first. */
static void mend_client(void)
{
	assert_int_equal(ftruncate(t.client_fd, CLIENT), 0);
	t.client = mmap(t.client, CLIENT, PROT_READ | PROT_WRITE,
			MAP_SHARED | (t.client ? MAP_FIXED : 0), t.client_fd, 0);
	assert_ptr_not_equal(t.client, MAP_FAILED);
	registry_withdraw(t.registry, INDEX);
	t.views[t.view] = (struct buffer_view){ .base = t.client, .len = CLIENT, .pinnable = true };
	assert_int_equal(registry_publish(t.registry, INDEX, &t.views[t.view]), 0);
}

static bool any_in_memory(void)
{
	for (unsigned int tag = 0; tag < DEPTH; tag++)
		if (t.io[tag].ours && (t.io[tag].where == MATCHED || t.io[tag].where == HOLED))
			return true;
	return false;
}

/*
 * The control thread and the driver: a buffer goes when no request uses it; its mapping when the
 * queue has let go; and another comes at another address, under the same index.
 */
static void buffers_come_and_go(void)
{
	uint8_t *old = t.client;

	if (!t.withdrawn && t.wanted_no_more && !any_in_memory()) {
		registry_withdraw(t.registry, INDEX);
		queue_wake(&t.queue);
		t.withdrawn = true;
		t.nr_withdrawals++;
	}
	if (!t.withdrawn || fixed_let_go(&t.queue.fixed) != registry_withdrawals(t.registry))
		return;
	for (unsigned int i = 0; i < fake_ring.nr_table; i++)
		assert_true(fake_ring.table[i].iov_base != old);
	t.client = NULL;
	t.view = !t.view;
	mend_client();
	munmap(old, CLIENT);
	t.withdrawn = t.wanted_no_more = false;
}

static void hand_out(unsigned int tag)
{
	if (t.tear)
		mend_client();
	t.io[tag] = any_io(tag);
	if (t.fixed && t.nr_left % 512 == 0)
		t.wanted_no_more = true;
	if (t.wanted_no_more)
		t.io[tag].where = COPIED;
	describe(tag, &t.io[tag]);
	write_data(tag, &t.io[tag]);
	t.fetched[tag] = false;
	t.nr_left--;
	if (++t.nr_at_once > t.most_at_once)
		t.most_at_once = t.nr_at_once;
	fake_ring_post(tag, UBLK_IO_RES_OK);
}

static void storage_ends_one(void)
{
	unsigned int i = (unsigned int)rand() % t.nr_queued;
	uint64_t user_data = t.queued[i];

	t.queued[i] = t.queued[--t.nr_queued];
	fake_ring_post(user_data, 0);
}

/* The device is stopped: also while the storage is still at it. */
static void stop_queue(void)
{
	t.stopping = true;
	for (unsigned int tag = 0; tag < DEPTH; tag++) {
		if (t.fetched[tag])
			fake_ring_post(tag, UBLK_IO_RES_ABORT);
		t.fetched[tag] = false;
	}
}

static void wait_for_something(void)
{
	static const int errors[] = { 0, 0, 0, -EINTR, -EAGAIN, -EBUSY };

	if (t.fixed)
		buffers_come_and_go();
	if (t.nr_left) {
		for (unsigned int tag = 0; tag < DEPTH && t.nr_left; tag++)
			if (t.fetched[tag] && rand() % 2 && (!t.tear || !t.nr_at_once))
				hand_out(tag);
	} else if (!t.stopping) {
		stop_queue();
	}
	wake_for_ended();
	if (t.nr_queued && (t.stopping || rand() % 2))
		storage_ends_one();
	fake_ring.submit_error = errors[rand() % 6];
}

/* ---- tests ---- */

static int set_up(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	memset(&fake_ring, 0, sizeof(fake_ring));
	srand(1);
	fake_ring.submitted = submitted;
	fake_ring.wait = wait_for_something;
	t.refuse_tag = -1;
	t.char_fd = memfd_create("ublkc", MFD_CLOEXEC);
	t.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(ftruncate(t.char_fd, 65536), 0);
	t.descriptors = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, t.char_fd, 0);
	assert_ptr_not_equal(t.descriptors, MAP_FAILED);
	t.client_fd = memfd_create("client", MFD_CLOEXEC);
	t.registry = calloc(1, sizeof(*t.registry));
	t.counters = calloc(1, sizeof(*t.counters));
	t.copied = calloc(1, sizeof(*t.copied));
	mend_client();
	fill(t.disk, DISK);
	memcpy(t.expected, t.disk, DISK);
	t.target = (struct ublkzc_target){ .block_size = SECTOR, .fd = -1 };
	t.size = DISK;
	t.memory_align = 1;
	pthread_mutex_init(&t.lock, NULL);
	pthread_cond_init(&t.more, NULL);
	assert_int_equal(pthread_create(&t.thread, NULL, elsewhere, NULL), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	pthread_mutex_lock(&t.lock);
	t.thread_stops = true;
	pthread_cond_signal(&t.more);
	pthread_mutex_unlock(&t.lock);
	pthread_join(t.thread, NULL);
	munmap(t.descriptors, 65536);
	close(t.char_fd);
	close(t.done_fd);
	munmap(t.client, CLIENT);
	close(t.client_fd);
	free(t.registry);
	free(t.counters);
	free(t.copied);
	return 0;
}

static int start(void)
{
	struct queue_config config = {
		.depth = DEPTH,
		.max_io = MAX_IO,
		.char_fd = t.char_fd,
		.shmem_zc = true,
		.memory_align = t.memory_align,
		.engine = t.fixed ? &fixed_engine : &engine,
		.target = &t.target,
		.size = &t.size,
		.registry = t.registry,
		.counters = t.counters,
		.copied = t.copied,
		.cpus = t.cpus,
	};

	t.awaits_ended = false;
	return queue_start(&t.queue, &config, t.done_fd);
}

static void run(unsigned int nr)
{
	uint64_t done;

	t.nr_left = nr;
	assert_int_equal(start(), 0);
	queue_join(&t.queue);
	queue_free(&t.queue);
	assert_int_equal(t.nr_done, nr);
	assert_false(fake_ring.open);
	assert_int_equal(read(t.done_fd, &done, sizeof(done)), sizeof(done));
	assert_memory_equal(t.disk, t.expected, DISK);
}

static void requests_of_all_kinds_at_once_are_done_right(void **state)
{
	(void)state;
	run(2000);
	assert_true(t.most_at_once >= DEPTH - 2);
	assert_true(counter_get(&t.counters->read.zero_copy_requests) > 100);
	assert_true(counter_get(&t.counters->write.copied_requests) > 100);
	assert_true(counter_get(&t.counters->copied_unknown_buffer) > 100);
	assert_int_equal(counter_get(&t.counters->bounced), 0);
	assert_int_equal(counter_get(&t.counters->copied_unanswered_bytes), 0);
	assert_true(t.nr_ended_elsewhere > 200);
	assert_true(counter_get(&t.counters->errors) > 100);
}

static void where_data_was_copied_is_noted_evenly(void **state)
{
	uint64_t copied, nr;

	(void)state;
	run(2000);
	copied = counter_get(&t.counters->read.copied_bytes) +
		 counter_get(&t.counters->write.copied_bytes);
	nr = atomic_load(&t.copied->nr);
	assert_true(copied > 10 * COPIED_STEP);
	assert_int_equal(nr, (copied + COPIED_STEP - 1) / COPIED_STEP);
	for (uint64_t i = 0; i < nr; i++)
		assert_true(atomic_load(&t.copied->places[i]) < DISK);
}

static void what_is_copied_while_a_client_waits_is_known(void **state)
{
	uint64_t copied;

	(void)state;
	registry_asked(t.registry);
	run(2000);
	copied = counter_get(&t.counters->read.copied_bytes) +
		 counter_get(&t.counters->write.copied_bytes);
	assert_true(counter_get(&t.counters->copied_unanswered_bytes) > copied / 2);
	assert_true(counter_get(&t.counters->copied_unanswered_bytes) <= copied);
}

static void misaligned_memory_goes_through_ours(void **state)
{
	(void)state;
	t.memory_align = 512;
	run(2000);
	assert_true(counter_get(&t.counters->bounced) > 100);
	assert_true(counter_get(&t.counters->bounced) <
		    counter_get(&t.counters->read.zero_copy_requests) +
			    counter_get(&t.counters->write.zero_copy_requests));
}

/*
 * The request has pages of its own, which the test keeps where the driver does: what an engine
 * did with memory that went away under it must not count.
 */
static void memory_that_goes_while_it_is_touched_is_copied_instead(void **state)
{
	(void)state;
	assert_int_equal(rescue_open(t.registry), 0);
	t.tear = true;
	run(500);
	assert_true(t.nr_torn > 100);
	assert_int_equal(counter_get(&t.counters->read.zero_copy_requests), 0);
	assert_int_equal(counter_get(&t.counters->write.zero_copy_requests), 0);
	signal(SIGBUS, SIG_DFL);
}

/* Between the engine's last look and ours. */
static void memory_that_goes_before_what_was_read_is_there_is_copied_instead(void **state)
{
	static uint8_t read_bytes[MAX_IO], got[MAX_IO];
	struct request rq = {
		.io = { .op = UBLKZC_READ, .len = MAX_IO },
		.zero_copy = true,
		.bounced = true,
		.client = t.client,
		.rescues = registry_rescues(t.registry),
	};
	struct queue q = {
		.config = { .max_io = MAX_IO,
			    .char_fd = t.char_fd,
			    .registry = t.registry,
			    .counters = t.counters,
			    .copied = t.copied },
		.bounce = read_bytes,
	};
	(void)state;

	fill(read_bytes, MAX_IO);
	atomic_fetch_add(&t.registry->rescues, 1);
	assert_int_equal(request_finish(&q, &rq, 0), 0);
	assert_int_equal(pread(t.char_fd, got, MAX_IO, pages_of(0)), MAX_IO);
	assert_memory_equal(got, read_bytes, MAX_IO);
	assert_int_equal(counter_get(&t.counters->read.copied_requests), 1);
	assert_int_equal(counter_get(&t.counters->read.zero_copy_requests), 0);
}

static void memory_that_the_ring_has_pinned_comes_and_goes(void **state)
{
	(void)state;
	t.fixed = true;
	fake_ring.features = 0; /* of an older kernel: io_command() looks */
	run(2000);
	assert_true(t.nr_withdrawals >= 2000 / 512 - 2);
	assert_true(t.nr_fixed > 100);
	assert_true(counter_get(&t.counters->fixed) > 10);
	assert_true(counter_get(&t.counters->fixed) <= t.nr_fixed);
	assert_true(fixed_let_go(&t.queue.fixed) == UINT64_MAX);
	assert_int_equal(fake_ring.most_entered, 1);
}

/* Its thread may run on @want, when requests come from t.cpus. */
static void expect_served_by(const cpu_set_t *want)
{
	CPU_ZERO(&t.served_by);
	memset(t.fetched, 0, sizeof(t.fetched));
	t.refuse_tag = DEPTH - 1;
	assert_int_equal(start(), -EBUSY);
	assert_true(CPU_EQUAL(&t.served_by, want));
}

static void a_queue_stays_on_its_processors_if_it_may(void **state)
{
	cpu_set_t allowed, one, beyond;
	int cpu = 0;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	while (!CPU_ISSET(cpu, &allowed))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CPU_ZERO(&beyond);
	CPU_SET(CPU_SETSIZE - 1, &beyond);
	t.cpus = one;
	expect_served_by(&one);
	/* And others that it may not have. */
	CPU_SET(CPU_SETSIZE - 1, &t.cpus);
	expect_served_by(&one);
	/* Only such; and it is not known. */
	t.cpus = beyond;
	expect_served_by(&allowed);
	CPU_ZERO(&t.cpus);
	expect_served_by(&allowed);
}

static void a_queue_without_requests_ends_with_its_device(void **state)
{
	(void)state;
	run(0);
	assert_int_equal(t.nr_submitted, 0);
}

static void a_refused_fetch_is_an_error_and_not_a_hang(void **state)
{
	(void)state;
	for (t.refuse_tag = 0; t.refuse_tag < (int)DEPTH; t.refuse_tag += 7) {
		memset(t.fetched, 0, sizeof(t.fetched));
		assert_int_equal(start(), -EBUSY);
		assert_false(fake_ring.open);
	}
}

static void older_kernels_get_older_rings(void **state)
{
	(void)state;
	fake_ring.init_errors[0] = fake_ring.init_errors[1] = -EINVAL;
	run(10);
	assert_int_equal(fake_ring.nr_inits, 3);
	assert_true(fake_ring.init_flags[0] & IORING_SETUP_DEFER_TASKRUN);
	assert_int_equal(fake_ring.init_flags[2], 0);
}

static void a_ring_that_cannot_be_had_is_an_error(void **state)
{
	(void)state;
	fake_ring.init_errors[0] = -ENOMEM;
	assert_int_equal(start(), -ENOMEM);
	assert_int_equal(fake_ring.nr_inits, 1);
	fake_ring.register_error = -EMFILE;
	assert_int_equal(start(), -EMFILE);
	assert_false(fake_ring.open);
	fake_ring.register_error = 0;
	fake_ring.submit_error = -ENOMEM;
	assert_int_equal(start(), -ENOMEM);
	assert_false(fake_ring.open);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(requests_of_all_kinds_at_once_are_done_right),
		T(where_data_was_copied_is_noted_evenly),
		T(what_is_copied_while_a_client_waits_is_known),
		T(misaligned_memory_goes_through_ours),
		T(memory_that_goes_while_it_is_touched_is_copied_instead),
		T(memory_that_goes_before_what_was_read_is_there_is_copied_instead),
		T(memory_that_the_ring_has_pinned_comes_and_goes),
		T(a_queue_stays_on_its_processors_if_it_may),
		T(a_queue_without_requests_ends_with_its_device),
		T(a_refused_fetch_is_an_error_and_not_a_hang),
		T(older_kernels_get_older_rings),
		T(a_ring_that_cannot_be_had_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
