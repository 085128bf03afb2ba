/* SPDX-License-Identifier: MIT */
/*
 * queue.c - fetch, serve, commit.
 *
 *   driver --(FETCH cqe)--> start_request --> engine --> ublkzc_complete --> end_request
 *      ^                                           (any thread)                   |
 *      +-----------------------------(COMMIT_AND_FETCH)---------------------------+
 *
 * Where a request's data is, request.c says.  A request that the engine ends on another
 * thread joins a list without a lock, whose first entry wakes the ring by an eventfd.
 */
#include "queue.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/privileges.h"
#include "request.h"

#define LATENCY_SAMPLE 7U /* no power of two: what comes in pairs is seen in turn */

/* user_data: what completed, and for which tag or descriptor */
#define UD_COMMAND 0ULL
#define UD_ENGINE (1ULL << 32)
#define UD_POLL (2ULL << 32)
#define UD_ENDED (3ULL << 32)
#define UD_KIND(data) ((data) & (3ULL << 32))
#define UD_TAG(data) ((uint16_t)(data))

/* The queue of this thread. */
static _Thread_local struct queue *mine;

static struct queue *queue_of(struct ublkzc_queue *io)
{
	return (struct queue *)io;
}

static struct io_uring_sqe *get_sqe(struct queue *q)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);

	while (!sqe) {
		/* The ring has room for two per tag, so this only drains it. */
		io_uring_submit(&q->ring);
		sqe = io_uring_get_sqe(&q->ring);
	}
	return sqe;
}

/* FETCH (@result unused) or COMMIT_AND_FETCH tag @tag. */
static void queue_io_command(struct queue *q, unsigned int cmd_op, uint16_t tag, int result)
{
	struct io_uring_sqe *sqe = get_sqe(q);
	struct ublksrv_io_cmd *cmd;

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->flags = q->plain_files ? 0 : IOSQE_FIXED_FILE;
	sqe->fd = q->plain_files ? q->config.char_fd : 0;
	sqe->off = cmd_op; /* cmd_op shares its place, which liburing 2.3 does not name */
	sqe->user_data = tag;
	cmd = (struct ublksrv_io_cmd *)&sqe->addr3;
	cmd->q_id = (uint16_t)q->config.id;
	cmd->tag = tag;
	cmd->result = result;
	if (q->segments)
		cmd->addr = (uintptr_t)q->segments[tag].list;
	q->nr_fetching++;
}

/* ---- requests ---- */

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/*
 * The clock is read once each time the thread wakes, whatever it wakes for.  What is begun and
 * done before it sleeps again (of a mem or null target: all) would need another look at it;
 * there one request in LATENCY_SAMPLE stands for all.
 */
static void count_time(struct queue *q, const struct request *rq)
{
	struct queue_counters *c = q->config.counters;
	uint64_t now = q->now;
	unsigned int nr = 1;

	if (rq->began == now) {
		if (++q->nr_quick % LATENCY_SAMPLE)
			return;
		now = clock_ns();
		nr = LATENCY_SAMPLE;
	}
	latency_add(rq->io.op == UBLKZC_READ ? &c->read_time : &c->write_time, now - rq->began, nr);
}

static void end_request(struct queue *q, struct request *rq, int res)
{
	bool has_data = rq->io.op == UBLKZC_READ || rq->io.op == UBLKZC_WRITE;

	if (request_copy_instead(q, rq, &res)) {
		q->config.engine->submit(&rq->io);
		return;
	}
	q->nr_begun--;
	res = request_finish(q, rq, res);
	if (has_data)
		count_time(q, rq);
	queue_io_command(q, UBLK_U_IO_COMMIT_AND_FETCH_REQ, (uint16_t)rq->io.tag,
			 res < 0 ? res : (has_data ? (int)rq->io.len : 0));
}

static void start_request(struct queue *q, struct request *rq)
{
	const struct ublksrv_io_desc *iod = &q->descriptors[rq->io.tag];
	int err = request_begin(q, rq, iod);

	rq->began = q->now;
	q->nr_begun++;
	if (err)
		end_request(q, rq, err);
	else
		q->config.engine->submit(&rq->io);
}

/* ---- ended on other threads ---- */

static void signal_fd(int fd)
{
	uint64_t one = 1;

	/* Somebody waits for it. */
	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* The release meets the acquire in end_listed(): what the thread did is seen there. */
static void list_ended(struct queue *q, struct request *rq, int res)
{
	struct request *first = atomic_load_explicit(&q->ended, memory_order_relaxed);

	rq->result = res;
	do
		rq->next_ended = first;
	while (!atomic_compare_exchange_weak_explicit(&q->ended, &first, rq, memory_order_release,
						      memory_order_relaxed));
	/* Who puts the first wakes; whoever adds to it comes before the list is taken. */
	if (!first)
		signal_fd(q->ended_fd);
}

static void await_ended(struct queue *q)
{
	struct io_uring_sqe *sqe = get_sqe(q);

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_READ;
	sqe->fd = q->ended_fd;
	sqe->addr = (uintptr_t)&q->ended_read;
	sqe->len = sizeof(q->ended_read);
	sqe->user_data = UD_ENDED;
}

static void end_listed(struct queue *q)
{
	struct request *rq = atomic_exchange_explicit(&q->ended, NULL, memory_order_acquire);
	struct request *first = NULL;

	/* In the order in which they were ended. */
	while (rq) {
		struct request *next = rq->next_ended;

		rq->next_ended = first;
		first = rq;
		rq = next;
	}
	while ((rq = first)) {
		first = rq->next_ended;
		end_request(q, rq, rq->result);
	}
}

/* ---- what engines call (host.c) ---- */

void queue_complete(struct ublkzc_request *io, int res)
{
	struct queue *q = queue_of(io->queue);
	struct request *rq = (struct request *)io;

	if (q == mine)
		end_request(q, rq, res);
	else
		list_ended(q, rq, res);
}

struct io_uring_sqe *queue_sqe(struct ublkzc_request *io)
{
	struct queue *q = queue_of(io->queue);
	struct io_uring_sqe *sqe = get_sqe(q);

	assert(q == mine);
	memset(sqe, 0, sizeof(*sqe));
	sqe->user_data = UD_ENGINE | io->tag;
	q->nr_queued++;
	return sqe;
}

int queue_poll(struct ublkzc_queue *io, int fd, unsigned int events)
{
	struct queue *q = queue_of(io);
	struct io_uring_sqe *sqe;

	assert(q == mine);
	if (fd < 0 || !q->config.engine->ready)
		return -EINVAL;
	sqe = get_sqe(q);
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_POLL_ADD;
	sqe->fd = fd;
	/* The kernel takes the halves of the word in its own order. */
	sqe->poll32_events = events;
	if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
		sqe->poll32_events = events << 16 | events >> 16;
	sqe->user_data = UD_POLL | (unsigned int)fd;
	return 0;
}

int queue_fixed(struct ublkzc_request *io)
{
	struct queue *q = queue_of(io->queue);
	struct request *rq = (struct request *)io;
	int entry;

	assert(q == mine);
	if (!rq->zero_copy || rq->bounced || rq->segments)
		return -1;
	entry = fixed_find(&q->fixed, rq->index, io->iov->iov_base, io->iov->iov_len);
	rq->fixed = entry >= 0;
	return entry;
}

/* ---- the ring ---- */

static void handle_command(struct queue *q, struct request *rq, int res)
{
	q->nr_fetching--;
	if (res == UBLK_IO_RES_OK)
		start_request(q, rq);
	else if (res != UBLK_IO_RES_ABORT)
		log_line(LOG_ERROR, "queue %u: tag %u can no longer be fetched: error %d",
			 q->config.id, rq->io.tag, res);
}

static void handle_cqe(struct queue *q, const struct io_uring_cqe *cqe)
{
	const struct ublkzc_engine *engine = q->config.engine;
	struct request *rq = &q->requests[UD_TAG(cqe->user_data)];

	switch (UD_KIND(cqe->user_data)) {
	case UD_COMMAND:
		handle_command(q, rq, cqe->res);
		break;
	case UD_ENGINE:
		q->nr_queued--;
		engine->cqe(&rq->io, cqe->res);
		break;
	case UD_POLL:
		engine->ready(&q->io, (int)(uint32_t)cqe->user_data, cqe->res);
		break;
	default:
		end_listed(q);
		await_ended(q);
	}
}

static void serve(struct queue *q)
{
	while (q->nr_fetching || q->nr_begun || q->nr_queued) {
		struct io_uring_cqe *cqe;
		unsigned int head;
		unsigned int nr = 0;

		if (q->letting_go)
			io_uring_submit_and_get_events(&q->ring);
		else
			io_uring_submit_and_wait(&q->ring, 1);
		q->now = clock_ns();
		q->letting_go = !fixed_wake(&q->fixed);
		io_uring_for_each_cqe(&q->ring, head, cqe)
		{
			handle_cqe(q, cqe);
			nr++;
		}
		io_uring_cq_advance(&q->ring, nr);
	}
}

/* Newer kernels can be told that one thread owns the ring; older ones refuse. */
static int init_ring(struct queue *q)
{
	static const unsigned int flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int ret = -EINVAL;

	for (unsigned int i = 0; i < 3 && ret == -EINVAL; i++)
		ret = io_uring_queue_init(2 * q->config.depth, &q->ring, flags[i]);
	return ret;
}

static int map_descriptors(struct queue *q)
{
	size_t per_queue = UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *map;

	q->descriptors_len =
		(q->config.depth * sizeof(struct ublksrv_io_desc) + page - 1) & ~(page - 1);
	map = mmap(NULL, q->descriptors_len, PROT_READ, MAP_SHARED | MAP_POPULATE,
		   q->config.char_fd, UBLKSRV_CMD_BUF_OFFSET + (off_t)(q->config.id * per_queue));
	if (map == MAP_FAILED)
		return -errno;
	q->descriptors = map;
	return 0;
}

static size_t bounce_size(const struct queue *q)
{
	return (size_t)q->config.depth * q->config.max_io;
}

static size_t segments_size(const struct queue *q)
{
	return (size_t)q->config.depth * sizeof(*q->segments);
}

static void *demand_zero(size_t size)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

/*
 * Nothing is asked of a device that is not live, so a FETCH that has ended was refused.  The
 * driver would wait for it for ever before it makes the device live.
 */
static int look_for_refusal(struct queue *q)
{
	struct io_uring_cqe *cqe;

	if (io_uring_peek_cqe(&q->ring, &cqe) != 0)
		return 0;
	return log_error(cqe->res < 0 ? cqe->res : -EPROTO, "queue %u: the driver refuses tag %u",
			 q->config.id, (unsigned int)UD_TAG(cqe->user_data));
}

static int no_memory(const struct queue *q)
{
	return log_error(-ENOMEM, "queue %u: %u requests of up to %u bytes", q->config.id,
			 q->config.depth, q->config.max_io);
}

/*
 * What the kernel swaps goes through here, so that there is memory; and if there is none for these
 * pages the queue and whoever wants memory wait for each other.  So some are there before.
 */
static void reserve_bounce(const struct queue *q)
{
	size_t len = bounce_size(q) < BOUNCE_RESERVE ? bounce_size(q) : BOUNCE_RESERVE;

	memset(q->bounce, 0, len);
}

static int allocate(struct queue *q)
{
	q->requests = calloc(q->config.depth, sizeof(*q->requests));
	if (!q->requests)
		return no_memory(q);
	for (unsigned int tag = 0; tag < q->config.depth; tag++) {
		q->requests[tag].io.queue = &q->io;
		q->requests[tag].io.tag = tag;
	}
	q->bounce = demand_zero(bounce_size(q));
	if (q->config.lists)
		q->segments = demand_zero(segments_size(q));
	if (!q->bounce || (q->config.lists && !q->segments))
		return no_memory(q);
	reserve_bounce(q);
	return 0;
}

/* Without, it is slower and nothing else; once is enough to say so. */
static void open_fixed(struct queue *q)
{
	int ret = q->config.shmem_zc ? fixed_open(&q->fixed, &q->ring, q->config.registry,
						  q->config.counters, q->config.max_io)
				     : 0;

	if (ret && !q->config.id)
		log_line(LOG_WARN,
			 "this kernel has no table of fixed buffers (error %d): I/O to the storage "
			 "pins its pages for each request",
			 ret);
	q->plain_files = fixed_needs_plain_files(&q->fixed);
}

static int open_ring(struct queue *q)
{
	int files[UBLKZC_FILE + 1] = { q->config.char_fd, q->config.target->fd };
	int ret = init_ring(q);

	if (ret)
		return log_error(ret, "queue %u: set up io_uring with %u entries", q->config.id,
				 2 * q->config.depth);
	q->ring_open = true;
	/* Entering it takes no reference to its file then.  Where it cannot be, it takes one. */
	io_uring_register_ring_fd(&q->ring);
	ret = io_uring_register_files(&q->ring, files, UBLKZC_FILE + 1);
	if (ret)
		return log_error(ret, "queue %u: register files", q->config.id);
	if (q->config.engine->flags & UBLKZC_FIXED)
		open_fixed(q);
	return 0;
}

static int open_engine(struct queue *q)
{
	const struct ublkzc_engine *engine = q->config.engine;
	int ret = engine->queue_open ? engine->queue_open(&q->io) : 0;

	if (ret)
		return log_error(ret, "queue %u: engine %s", q->config.id, engine->name);
	q->engine_open = true;
	return 0;
}

static int fetch(struct queue *q)
{
	int ret;

	await_ended(q);
	for (unsigned int tag = 0; tag < q->config.depth; tag++)
		queue_io_command(q, UBLK_U_IO_FETCH_REQ, (uint16_t)tag, 0);
	ret = io_uring_submit(&q->ring);
	return ret < 0 ? log_error(ret, "queue %u: fetch", q->config.id) : look_for_refusal(q);
}

static int set_up(struct queue *q)
{
	int ret = allocate(q);

	if (ret)
		return ret;
	ret = map_descriptors(q);
	if (ret)
		return log_error(ret, "queue %u: map the io descriptors", q->config.id);
	if ((ret = open_ring(q)) || (ret = open_engine(q)))
		return ret;
	return fetch(q);
}

/*
 * Near the requests, as other ublk servers do it; and what the thread allocates is on its node then.
 * What whoever started the server allows it stays the limit.
 */
static void stay_near(const struct queue *q)
{
	cpu_set_t allowed, near;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return;
	CPU_AND(&near, &allowed, &q->config.cpus);
	if (CPU_COUNT(&near) && !CPU_EQUAL(&near, &allowed))
		sched_setaffinity(0, sizeof(near), &near);
}

static void *queue_main(void *arg)
{
	struct queue *q = arg;
	char name[32];

	snprintf(name, sizeof(name), "ublkzc-q%u", q->config.id);
	pthread_setname_np(pthread_self(), name); /* for ps -L and top -H */
	mine = q;
	stay_near(q);
	q->error = set_up(q);
	privileges_keep_none();
	signal_fd(q->ready_fd);
	if (!q->error)
		serve(q);
	if (q->engine_open && q->config.engine->queue_close)
		q->config.engine->queue_close(&q->io);
	if (q->ring_open)
		io_uring_queue_exit(&q->ring);
	fixed_close(&q->fixed);
	signal_fd(q->done_fd);
	return NULL;
}

void queue_free(struct queue *q)
{
	if (q->descriptors)
		munmap((void *)q->descriptors, q->descriptors_len);
	if (q->bounce)
		munmap(q->bounce, bounce_size(q));
	if (q->segments)
		munmap(q->segments, segments_size(q));
	free(q->requests);
	if (q->ready_fd >= 0)
		close(q->ready_fd);
	if (q->ended_fd >= 0)
		close(q->ended_fd);
}

/* When the thread has said whether it could begin. */
static int wait_for_thread(struct queue *q)
{
	uint64_t ready;

	while (read(q->ready_fd, &ready, sizeof(ready)) < 0 && errno == EINTR)
		;
	if (q->error)
		queue_join(q);
	return q->error;
}

int queue_start(struct queue *q, const struct queue_config *config, int done_fd)
{
	int ret = 0;

	*q = (struct queue){
		.io = { .target = config->target, .id = config->id },
		.config = *config,
		.done_fd = done_fd,
		.ready_fd = eventfd(0, EFD_CLOEXEC),
		.ended_fd = eventfd(0, EFD_CLOEXEC),
	};
	if (q->ready_fd < 0 || q->ended_fd < 0) {
		ret = log_error(-errno, "queue %u: eventfd", config->id);
	} else {
		ret = pthread_create(&q->thread, NULL, queue_main, q);
		ret = ret ? log_error(-ret, "queue %u: start its thread", config->id)
			  : wait_for_thread(q);
	}
	if (ret)
		queue_free(q);
	return ret;
}

void queue_wake(struct queue *q)
{
	signal_fd(q->ended_fd);
}

void queue_join(struct queue *q)
{
	pthread_join(q->thread, NULL);
}
