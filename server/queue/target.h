/* SPDX-License-Identifier: MIT */
/*
 * target.h - where the bytes live.
 *
 * A target turns one block request into I/O on its own storage.  The core
 * owns the device, the ring and the request; the target owns what hangs off
 * target->priv.  One file per target: targets/target_<name>.c.
 *
 * Units are bytes; sectors stop in request.c.  Functions return 0 or a
 * negative errno and do not log, open() excepted: what is wrong with a path
 * is best said where it is known.
 */
#ifndef UBLKZC_SERVER_TARGET_H
#define UBLKZC_SERVER_TARGET_H

#include <stdbool.h>
#include <stdint.h>

struct queue;
struct request;
struct target;

struct target_ops {
	const char *name; /* as given to -t */
	const char *help; /* one line for --help */
	bool takes_path;  /* a PATH argument is required (else refused) */
	bool takes_size;  /* --size is required, or has a default (else refused) */

	/*
	 * Acquire the storage named by target->path or sized by target->size
	 * and fill in the rest of *target.  Main thread, once.  Logs what is
	 * wrong.  On failure the core still calls close().
	 */
	int (*open)(struct target *target);

	/*
	 * Do @rq: its op, offset, length and data are set, data is NULL for
	 * requests without.  Queue threads.  Either call request_complete() now, or
	 * queue SQEs with request_sqe(); then cqe() runs once for each
	 * completion, and request_complete() must be called exactly once in the end.
	 */
	void (*submit)(struct queue *q, struct request *rq);

	/* A completion of @rq with result @res.  NULL if submit never queues. */
	void (*cqe)(struct queue *q, struct request *rq, int res);

	/*
	 * Make room for *@size bytes, more than target->size, or (0) see how much
	 * there is now.  Sets *@size; target->size is the core's to change.  Main
	 * thread, while queue threads submit.  NULL: any size will do.
	 */
	int (*grow)(struct target *target, uint64_t *size);

	/* Release open()'s work, however far it got.  Main thread. */
	void (*close)(struct target *target);
};

struct target {
	const struct target_ops *ops;
	const char *path;      /* borrowed from the options; NULL without one */
	bool read_only;	       /* in: asked for; out: the storage is so */
	bool buffered;	       /* in: do not use direct I/O */
	bool force;	       /* in: also if somebody else has the storage */
	_Atomic uint64_t size; /* bytes, a multiple of block_size; may grow */
	uint32_t block_size;   /* logical block size: bytes, 512..4096; in: 0 or asked for */
	uint32_t memory_align; /* bytes a data pointer must be aligned to; 1: any */
	bool volatile_cache;   /* FLUSH means something */
	bool discard;	       /* DISCARD and WRITE_ZEROES are worth trying */
	/* Registered as fixed file with every ring; -1: none.  in: -1, or what a
	 * predecessor had, to go on with. */
	int fd;
	void *priv; /* owned by ops */
};

#endif
