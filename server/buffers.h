/* SPDX-License-Identifier: MIT */
/*
 * buffers.h - the life of registered buffers.
 *
 *            add                 kernel says index
 *   (none) ------> REGISTERING ------------------> LIVE (published)
 *                      |  ^                          | last use ends
 *         kernel says  |  | somebody added it again  v
 *         no: freed    |  +------------------- UNREGISTERING
 *                      v                             | nobody did: unmapped
 *                   (none) <-------------------------+
 *
 * The kernel is asked for one thing at a time, but for several unregistrations
 * together; who has to wait meanwhile waits in a queue.  So a successor can tell
 * what became of the one registration that may have been under way.
 *
 * The same range of the same memfd is registered once, however many clients
 * add it; each add is a use, and the last use to end unregisters it.
 *
 * All on the control thread.  Registering and unregistering are asked of a
 * backend and finish later, through buffers_finished().
 */
#ifndef UBLKZC_SERVER_BUFFERS_H
#define UBLKZC_SERVER_BUFFERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/uapi.h"
#include "common/wire.h"
#include "registry.h"
#include "vault.h"

struct buffer;

/* Who asks the driver; the tests have one of their own. */
struct buffers_backend {
	void *arg;
	/* 0: buffers_finished(@cookie, result) follows.  @reg lives until then. */
	int (*reg)(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie);
	int (*unreg)(void *arg, unsigned int index, void *cookie);
};

/* The answer to an add.  @client is NULL for a buffer of the server's own. */
typedef void buffers_answer_fn(void *arg, void *client, uint32_t seq, int status,
			       enum wire_reason reason, unsigned int index, uint64_t len);

struct buffers {
	struct registry *registry;
	struct buffers_backend backend;
	buffers_answer_fn *answer;
	void *answer_arg;
	uint64_t max_bytes; /* all buffers together */
	uint64_t bytes;	    /* registered or about to be */
	unsigned int nr;
	unsigned int indices;	    /* one more than the highest so far */
	unsigned int registering;   /* asked of the backend, not answered: 0 or 1 */
	unsigned int unregistering; /* asked of the backend, not answered */
	bool paused;		    /* the driver is asked for nothing */
	struct vault *vault;	    /* NULL: none */
	struct buffer *first;
	struct buffer *first_waiting, *last_waiting; /* to be asked, in order */
};

/* What to add; @fd is borrowed for the call. */
struct buffer_request {
	int fd;
	uint64_t offset; /* bytes, page-aligned */
	uint64_t len;	 /* bytes, page-aligned */
	bool read_only;
	void *client;	/* identity only; NULL: the server itself */
	uint64_t owner; /* the client's id in the vault */
	uint32_t seq;
	/* NULL: that of struct buffers.  A successor does not know of uses with
	 * one: whoever has them asks again. */
	buffers_answer_fn *answer;
	void *answer_arg;
	dev_t dev; /* of the file, for buffers_next() and buffers_keep() */
	ino_t ino;
};

struct buffer_range {
	uint64_t offset, len; /* bytes */
	bool read_only;
};

/*
 * Returns 0 when the answer will come (perhaps from within this call), or a
 * negative errno with the reason, and then none comes.
 */
int buffers_add(struct buffers *b, const struct buffer_request *req, enum wire_reason *ret_reason);

/*
 * The first buffer of the same file that meets @req's range, whatever its
 * access.  False: there is none.
 */
bool buffers_next(const struct buffers *b, const struct buffer_request *req,
		  struct buffer_range *ret);

/*
 * Does @req's client use exactly this buffer?  Then the use gets @req's seq:
 * 0, or -EALREADY when it had it.  -ENOENT: no.
 */
int buffers_keep(struct buffers *b, const struct buffer_request *req);

/* End the uses by @client with another seq; how many of them had no answer. */
unsigned int buffers_sweep(struct buffers *b, void *client, uint32_t seq);

/* End one use of @index by @client.  -ENOENT when it has none. */
int buffers_remove(struct buffers *b, void *client, unsigned int index);

/* End all uses by @client; no answer reaches it any more. */
void buffers_forget_client(struct buffers *b, void *client);

/*
 * Ask the driver for nothing more, or again: a successor before its device resumes, and a
 * server that is about to hand over.  What is wanted meanwhile waits, and is recorded.
 */
void buffers_pause(struct buffers *b, bool paused);

/* Nothing is asked of the driver now. */
bool buffers_idle(const struct buffers *b);

/* The backend's result: an index or 0, or a negative errno. */
void buffers_finished(struct buffers *b, void *cookie, int res);

/*
 * What a predecessor left, while paused: its buffers, then their uses, then
 * buffers_restored().  Each buffer is published under the index that it has or
 * may have, and held until buffers_resume().  @fd is borrowed.
 */
int buffers_restore(struct buffers *b, const struct vault_record *r, int fd);
int buffers_restore_use(struct buffers *b, const struct vault_record *r, void *client,
			uint64_t *ret_len);
int buffers_restored(struct buffers *b);

/* The device has resumed: ask the driver for what was left unfinished. */
void buffers_resume(struct buffers *b);

/* Unmap everything; the device is gone, so the kernel needs no asking. */
void buffers_close(struct buffers *b);

#endif
