/* SPDX-License-Identifier: MIT */
/*
 * queue.h - one hardware queue: a thread, a ring, its requests.
 *
 * The ring, the requests and everything else in struct queue belong to the
 * queue's thread, from queue_start() until queue_join().  What other threads
 * may see: the counters (written by this thread only, read by anyone), and
 * the registry, which this thread only reads.
 */
#ifndef UBLKZC_SERVER_QUEUE_H
#define UBLKZC_SERVER_QUEUE_H

#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/uapi.h"
#include "server/life/state.h"
#include "server/memory/registry.h"
#include "segments.h"
#include "target.h"

enum request_op { REQ_READ, REQ_WRITE, REQ_FLUSH, REQ_DISCARD, REQ_WRITE_ZEROES };

struct request {
	uint16_t tag;
	uint8_t op; /* enum request_op */
	bool fua;
	bool no_unmap;		   /* WRITE_ZEROES: keep the space allocated */
	bool writing_zeroes;	   /* the file target's: WRITE_ZEROES by writing */
	bool zero_copy;		   /* data is in a registered buffer */
	bool bounced;		   /* zero_copy, but io goes through the bounce buffer */
	uint64_t began;		   /* when the server had it, by queue.now */
	uint64_t offset;	   /* bytes on the device */
	uint32_t len;		   /* bytes */
	uint32_t done;		   /* bytes finished; the target's to use */
	uint8_t *data;		   /* len bytes for READ and WRITE; NULL else, and with segments */
	struct segments *segments; /* where the data is, if not in one piece; or NULL */
	uint8_t *client;	   /* bounced: where the bytes really belong */
};

struct queue_config {
	unsigned int id;
	unsigned int depth;
	uint32_t max_io; /* bytes of the largest request */
	int char_fd;	 /* /dev/ublkcN, borrowed */
	bool shmem_zc;	 /* the device has the feature */
	bool lists;	 /* and its driver lists what is not in one piece */
	struct target *target;
	const struct registry *registry;
	struct queue_counters *counters;
};

struct queue {
	struct queue_config config;
	struct io_uring ring;
	bool ring_open;
	const struct ublksrv_io_desc *descriptors;
	size_t descriptors_len;
	struct request *requests;  /* depth of them, by tag */
	uint8_t *bounce;	   /* depth * max_io bytes, demand-zero */
	struct segments *segments; /* depth of them, demand-zero; NULL without lists */
	uint64_t now;		   /* ns, of the last time the thread woke */
	unsigned int nr_quick;	   /* requests that were done before it slept again */
	unsigned int nr_fetching;  /* commands owned by the driver */
	unsigned int nr_target;	   /* target completions outstanding */
	pthread_t thread;
	int ready_fd; /* eventfd: written once, when FETCH is done or failed */
	int done_fd;  /* eventfd: written when the thread ends */
	int error;    /* why the thread could not start, or 0 */
};

/*
 * Start the thread; returns when all tags are fetched (the device may be
 * started) or with the error.  @done_fd is written when the thread ends.
 */
int queue_start(struct queue *q, const struct queue_config *config, int done_fd);

/* Wait for the thread and release everything.  Call once per started queue. */
void queue_join(struct queue *q);

/* For targets, on the queue's thread. */

/* A zeroed SQE whose completion reaches ops->cqe(rq).  Never NULL. */
struct io_uring_sqe *request_sqe(struct queue *q, struct request *rq);

/* @res: 0, or a negative errno.  A request is done whole or failed. */
void request_complete(struct queue *q, struct request *rq, int res);

/* Fixed file index of target->fd in the ring. */
#define QUEUE_TARGET_FILE 1

#endif
