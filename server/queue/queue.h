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
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <ublkzc/engine.h>

#include "common/uapi.h"
#include "server/life/state.h"
#include "server/memory/registry.h"
#include "fixed.h"
#include "segments.h"

/* What the engine sees of a request, and what is the queue's. */
struct request {
	struct ublkzc_request io;   /* first, so that one is the other */
	bool zero_copy;		    /* its data is in registered memory */
	bool bounced;		    /* and yet goes through the bounce buffer */
	bool fixed;		    /* by an entry of queue.fixed */
	unsigned int index;	    /* of the buffer, if its data is in one piece of one */
	uint64_t began;		    /* when the server had it, by queue.now */
	struct iovec piece;	    /* data in one piece; io.iov */
	struct segments *segments;  /* in several, or NULL; then io.iov is theirs */
	uint8_t *client;	    /* bounced: where the bytes really belong */
	unsigned int rescues;	    /* registry_rescues() before its data was looked up */
	struct request *next_ended; /* of queue.ended */
	int result;		    /* while there */
};

struct queue_config {
	unsigned int id;
	unsigned int depth;
	uint32_t max_io;       /* bytes of the largest request */
	uint32_t memory_align; /* what the engine needs, at least 1 */
	int char_fd;	       /* /dev/ublkcN, borrowed */
	cpu_set_t cpus;	       /* whose requests come here; none: not known */
	bool shmem_zc;	       /* the device has the feature */
	bool lists;	       /* and its driver lists what is not in one piece */
	const struct ublkzc_engine *engine;
	const struct ublkzc_target *target;
	const _Atomic uint64_t *size; /* bytes that the device has now */
	const struct registry *registry;
	struct queue_counters *counters;
	struct copied *copied; /* of the device */
};

#define BOUNCE_RESERVE (4UL << 20) /* bytes of bounce memory that are there from the beginning */

struct queue {
	struct ublkzc_queue io; /* first: what the engine sees */
	struct queue_config config;
	struct io_uring ring;
	bool ring_open;
	bool engine_open;
	bool plain_files; /* commands name /dev/ublkcN by its descriptor: fixed.h */
	const struct ublksrv_io_desc *descriptors;
	size_t descriptors_len;
	struct request *requests;  /* depth of them, by tag */
	uint8_t *bounce;	   /* depth * max_io bytes, demand-zero */
	struct segments *segments; /* depth of them, demand-zero; NULL without lists */
	struct fixed fixed;
	bool letting_go;	   /* fixed_wake() has more to do */
	uint64_t now;		   /* ns, of the last time the thread woke */
	uint32_t copied_left;	   /* bytes to copy until the next place is noted */
	unsigned int nr_quick;	   /* requests that were done before it slept again */
	unsigned int nr_fetching;  /* commands owned by the driver */
	unsigned int nr_begun;	   /* requests that the engine has */
	unsigned int nr_queued;	   /* entries of its in the ring */
	/* Requests that the engine has ended on other threads, the last first. */
	_Atomic(struct request *) ended;
	int ended_fd;	     /* eventfd: written when that was empty */
	uint64_t ended_read; /* what is read from it */
	pthread_t thread;
	int ready_fd; /* eventfd: written once, when FETCH is done or failed */
	int done_fd;  /* eventfd: written when the thread ends */
	int error;    /* why the thread could not start, or 0 */
};

/*
 * Start the thread; returns when all tags are fetched (the device may be started) or with
 * the error, and then there is nothing to join or to free.  @done_fd is written when the
 * thread ends.
 */
int queue_start(struct queue *q, const struct queue_config *config, int done_fd);

/* Any thread: let the thread go round once. */
void queue_wake(struct queue *q);

/* Wait for the thread.  Once per started queue. */
void queue_join(struct queue *q);

/* Release everything, when no thread of the engine is left. */
void queue_free(struct queue *q);

/* What engines call: host.c. */
void queue_complete(struct ublkzc_request *io, int res);
struct io_uring_sqe *queue_sqe(struct ublkzc_request *io);
int queue_poll(struct ublkzc_queue *io, int fd, unsigned int events);
int queue_fixed(struct ublkzc_request *io);

#endif
