/* SPDX-License-Identifier: MIT */
/*
 * engine.h - where the bytes of a ublk device live: the interface of ublkzc's engines.
 *
 * An engine turns one block request into I/O on its own storage.  ublkzc owns the device, the
 * rings, the requests and the memory of clients; the engine owns what hangs off priv.  The
 * engines null, mem and file are made with what is here and nothing else; others are shared
 * objects, which "ublkzc add -t NAME" loads: ublkzc-engine(3).
 *
 * Threads.  There is one control thread, which opens and closes, and one thread for each
 * queue, which submits.  Each function says whose it is.  Nothing that runs on a queue
 * thread may wait: every request of that queue would wait with it.
 *
 * Units are bytes.  Errors are negative errno values, 0 is success.  Only what runs on the
 * control thread logs (ublkzc_error()), because only there is somebody who can mend it.
 *
 * Memory.  The data of a request may be a client's own memory, which the client can truncate,
 * punch holes into or change at any moment.  System calls that meet a hole say EFAULT: end the
 * request with it, and it comes again with a copy.  An engine whose own code reads or writes
 * the bytes says so (UBLKZC_TOUCHES_DATA); a hole is then filled before the code can notice, and
 * the request comes again with a copy, whatever it ended with.  So an engine never meets a
 * SIGBUS, but may be given a request twice, and must not trust that bytes stay as they were
 * when it read them first.
 *
 * Compatibility.  What is here only grows at the ends of structures, whose size says how much
 * of them there is; anything else raises UBLKZC_ENGINE_VERSION, and ublkzc refuses engines
 * of another version, saying which.
 */
#ifndef UBLKZC_ENGINE_H
#define UBLKZC_ENGINE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UBLKZC_ENGINE_VERSION 1

struct io_uring_sqe; /* <liburing.h> or <linux/io_uring.h> */

struct ublkzc_option {
	const char *name;  /* NULL ends the list */
	/* How help names what it takes, as "yes|no".  A path must be called "FILE": it is made
	 * absolute, because successors have another working directory. */
	const char *value;
	const char *help;  /* begins small, has no full stop */
};

struct ublkzc_setting {
	const char *name, *value;
};

/* What is served: one for a device. */
struct ublkzc_target {
	/* What the command line says.  Lives as long as the target. */
	const char *path; /* the engine's argument; NULL if it has none */
	const struct ublkzc_setting *settings; /* -o name=value; only names of engine.options */
	unsigned int nr_settings;
	unsigned int nr_queues;
	unsigned int depth; /* requests of a queue at once */

	/* What open() is given and may change. */
	/* --size, or 0; out: a multiple of block_size, not 0.  Stays what open() said. */
	uint64_t size;
	uint32_t block_size; /* --block-size, or 0; out: 512, 1024, 2048 or 4096 */
	uint32_t max_io;     /* bytes of the largest request; open() may lower it to 4096 */
	bool read_only;	     /* clients cannot write */
	/*
	 * -1, or what a dead server of this device had here, the same open file.  What open()
	 * leaves here stays open when the server dies, for its successor, and is file
	 * UBLKZC_FILE of every queue's ring.  The engine's; close() closes it.
	 */
	int fd;

	/* What open() says of the storage; all false and 0 before. */
	/*
	 * A power of two that every iov_base must be a multiple of, and then every iov_len is a
	 * multiple of block_size; what is not goes through memory of ublkzc's.  0 or 1: any.
	 */
	uint32_t memory_align;
	bool volatile_cache;   /* FLUSH and fua mean something */
	bool discard;	       /* DISCARD is worth trying */
	bool write_zeroes;     /* WRITE_ZEROES too */
	bool rotational;       /* near is faster than far */
	uint32_t preferred;    /* bytes, a power of two: good requests are multiples of it; or 0 */

	void *priv; /* the engine's */
};

/* A hardware queue of it. */
struct ublkzc_queue {
	const struct ublkzc_target *target;
	unsigned int id;
	void *priv; /* the engine's */
};

enum ublkzc_op {
	UBLKZC_READ,
	UBLKZC_WRITE,
	UBLKZC_FLUSH,
	UBLKZC_DISCARD,
	UBLKZC_WRITE_ZEROES,
};

struct ublkzc_request {
	struct ublkzc_queue *queue;
	enum ublkzc_op op;
	uint32_t tag;	 /* 0 .. depth - 1; no two requests of a queue have it at once */
	bool fua;	 /* WRITE and WRITE_ZEROES: done when it is on stable storage */
	bool no_unmap;	 /* WRITE_ZEROES: keep the space allocated */
	uint64_t offset; /* within target->size; 0 for FLUSH */
	uint32_t len;	 /* a multiple of block_size; 0 for FLUSH */
	/*
	 * READ and WRITE: where the data is, len bytes together; nr_iov is 0 for others.  The
	 * engine may change both (ublkzc_advance()), they are made anew for each submit().
	 */
	struct iovec *iov;
	unsigned int nr_iov;
	/* The engine's, 0 and NULL at submit(). */
	uint32_t done;
	uint32_t state;
	void *priv;
};

/* ublkzc_engine.flags */
#define UBLKZC_TAKES_SIZE (1U << 0)   /* --size is required, or has a default */
#define UBLKZC_TOUCHES_DATA (1U << 1) /* code of the engine loads or stores the bytes */
#define UBLKZC_IN_MEMORY (1U << 2)    /* what is stored ends with target.fd */
#define UBLKZC_FIXED (1U << 3)	      /* asks for ublkzc_fixed() */

struct ublkzc_engine {
	uint32_t size; /* of this structure */
	uint32_t flags;
	const char *name;    /* as given to -t: letters, digits, - and _ */
	const char *summary; /* one line for people: begins small, no full stop */
	/* What help calls the argument, as "PATH"; it is required then.  NULL: takes none. */
	const char *argument;
	const struct ublkzc_option *options; /* NULL: none */
	uint64_t default_size;		     /* UBLKZC_TAKES_SIZE; 0: --size is required */

	/*
	 * Can a new device be like that?  Opens nothing and changes nothing.  What is wrong, the
	 * value and what to do, goes to @why (one line).  Before the server is
	 * started, so that it is an error of the command line; not for successors, so open() must
	 * cope with anything.  Optional.
	 */
	int (*check)(const struct ublkzc_target *target, char *why, size_t size);

	/*
	 * Acquire the storage and fill in the target.  Logs what is wrong.  If it fails close() is
	 * called all the same.  May start threads, which may not change credentials or
	 * execute programs.  Control thread, once.  Required.
	 */
	int (*open)(struct ublkzc_target *target);

	/*
	 * Of a device whose server died: when it returns 0, nothing that the dead server had under
	 * way can reach the storage any more.  After open(), before any request; what was not
	 * completed is submitted again after it.  On an error the device waits for another
	 * server.  NULL: nothing outlives the process that asked for it, nor the ring (which
	 * the driver waits for): so it is for I/O by ublkzc_sqe(), not for what is under way on
	 * sockets or in other programs.  Control thread; may wait.
	 */
	int (*fence)(struct ublkzc_target *target);

	/*
	 * Make room for *@size bytes, more than there are, or (0) see how many there are now.  Sets
	 * *@size.  -EINVAL: not to that size.  Control thread, while queues submit.  NULL: any
	 * size will do.
	 */
	int (*grow)(struct ublkzc_target *target, uint64_t *size);

	/*
	 * Release what open() acquired, however far it got.  All queues are closed.  When
	 * it returns no thread of the engine calls ublkzc any more.  Control thread.  Required.
	 */
	void (*close)(struct ublkzc_target *target);

	/* A queue begins and ends: queue->priv.  Its own thread.  Optional. */
	int (*queue_open)(struct ublkzc_queue *queue);
	void (*queue_close)(struct ublkzc_queue *queue); /* not after a failed open */

	/*
	 * Begin @rq; ublkzc_complete() must be called for it exactly once, here or later, on
	 * this thread or another.  Queue thread; must not wait.  Required.
	 */
	void (*submit)(struct ublkzc_request *rq);

	/* What ublkzc_sqe() queued for @rq is done, with @res.  Queue thread. */
	void (*cqe)(struct ublkzc_request *rq, int res);

	/* @fd, given to ublkzc_poll(), has @events (poll(2)), or a negative errno.  Queue thread. */
	void (*ready)(struct ublkzc_queue *queue, int fd, int events);
};

/* ---- what an engine may call ---- */

enum ublkzc_level { UBLKZC_LOG_ERROR, UBLKZC_LOG_WARNING, UBLKZC_LOG_INFO, UBLKZC_LOG_DEBUG };

/* ublkzc's side.  Use the functions below, which are the same with types. */
struct ublkzc_host {
	uint32_t version; /* UBLKZC_ENGINE_VERSION */
	uint32_t size;	  /* of this structure */
	void (*complete)(struct ublkzc_request *rq, int res);
	struct io_uring_sqe *(*sqe)(struct ublkzc_request *rq);
	int (*poll)(struct ublkzc_queue *queue, int fd, unsigned int events);
	void (*log)(enum ublkzc_level level, const char *format, va_list args);
	void (*who_has)(dev_t dev, char *buf, size_t size);
	int (*fixed)(struct ublkzc_request *rq);
};

extern const struct ublkzc_host *ublkzc_host __attribute__((visibility("hidden")));

/*
 * @rq is done: with 0, whole, or with a negative errno.  A request that is only
 * partly done has failed.  Any thread; @rq is not the engine's any more.
 */
static inline void ublkzc_complete(struct ublkzc_request *rq, int res)
{
	ublkzc_host->complete(rq, res);
}

/*
 * A zeroed entry of the queue's io_uring, to be filled in (but user_data) before anything of
 * ublkzc is called again, which may submit it; cqe() has its result.  Never NULL.  Its fd
 * UBLKZC_FILE with IOSQE_FIXED_FILE is target->fd.  Queue thread.
 */
#define UBLKZC_FILE 1
static inline struct io_uring_sqe *ublkzc_sqe(struct ublkzc_request *rq)
{
	return ublkzc_host->sqe(rq);
}

/*
 * For an entry by READ_FIXED or WRITE_FIXED: the buf_index with which it may use *rq->iov, whose
 * pages the ring has pinned before; or -1, and it is to be an ordinary one.  Of an engine with
 * UBLKZC_FIXED.  Queue thread, before ublkzc_sqe(), anew for each entry.
 */
static inline int ublkzc_fixed(struct ublkzc_request *rq)
{
	return ublkzc_host->size > offsetof(struct ublkzc_host, fixed) ? ublkzc_host->fixed(rq)
								       : -1;
}

/*
 * Call ready() once when @fd has one of @events (poll(2)) or an error.  @fd stays the
 * engine's; what is polled for may still be told after it was closed.  Queue thread.
 */
static inline int ublkzc_poll(struct ublkzc_queue *queue, int fd, unsigned int events)
{
	return ublkzc_host->poll(queue, fd, events);
}

/* A line for the server's log, without its end.  Any thread. */
static inline void __attribute__((format(printf, 2, 3)))
ublkzc_log(enum ublkzc_level level, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	ublkzc_host->log(level, format, args);
	va_end(args);
}

/* Who has the block device @dev, in words, for a message. */
static inline void ublkzc_who_has(dev_t dev, char *buf, size_t size)
{
	ublkzc_host->who_has(dev, buf, size);
}

/* The value of -o @name=VALUE, the last one; NULL: there is none.  Any thread. */
static inline const char *ublkzc_setting(const struct ublkzc_target *target, const char *name)
{
	for (unsigned int i = target->nr_settings; i-- > 0;)
		if (strcmp(target->settings[i].name, name) == 0)
			return target->settings[i].value;
	return NULL;
}

/* 1: the option is "yes"; 0: "no", or not there; -1: something else. */
static inline int ublkzc_setting_yes(const struct ublkzc_target *target, const char *name)
{
	const char *value = ublkzc_setting(target, name);

	if (!value || strcmp(value, "no") == 0)
		return 0;
	return strcmp(value, "yes") == 0 ? 1 : -1;
}

/* The first @bytes of what was left of @rq's data are done: iov begins behind them. */
static inline void ublkzc_advance(struct ublkzc_request *rq, size_t bytes)
{
	rq->done += (uint32_t)bytes;
	while (rq->nr_iov && bytes >= rq->iov->iov_len) {
		bytes -= rq->iov->iov_len;
		rq->iov++;
		rq->nr_iov--;
	}
	if (!rq->nr_iov)
		return;
	rq->iov->iov_base = (char *)rq->iov->iov_base + bytes;
	rq->iov->iov_len -= bytes;
}

/* ---- how it is found ---- */

struct ublkzc_module {
	uint32_t version;
	uint32_t size;
	const struct ublkzc_engine *engine;
	const struct ublkzc_host **host; /* set before anything of the engine is called */
};

/*
 * Once in a shared object.  To load it must start no thread and open no descriptor: it is
 * also loaded to be listed.
 */
#define UBLKZC_ENGINE(an_engine)                                                                   \
	const struct ublkzc_host *ublkzc_host;                                                     \
	extern const struct ublkzc_module ublkzc_module;                                           \
	__attribute__((visibility("default"))) const struct ublkzc_module ublkzc_module = {        \
		UBLKZC_ENGINE_VERSION, sizeof(struct ublkzc_module), &(an_engine), &ublkzc_host    \
	}

#ifdef __cplusplus
}
#endif

#endif
