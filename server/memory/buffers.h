/* SPDX-License-Identifier: MIT */
/*
 * buffers.h - what should be registered, what is, and what makes the second of the first.
 *
 *   file    memory that somebody wants registered: (st_dev, st_ino), and a descriptor
 *     use     a range of it that a client wants: a wish
 *     slice   a part that is registered, or on the way: what the driver calls a buffer
 *
 * Wishes say nothing about the driver, and slices nothing about clients: a look at which pages
 * of the file exist, and a plan (plan.c), lead from the one to the other; and the same again
 * whenever something has changed, in a successor too.  The server never allocates a
 * page of a client's: what does not exist is not registered, and copied until it does.
 *
 *                    plan             kernel says index
 *   (none) --> WAITING --> REGISTERING ------------------> LIVE (published)
 *                 |           | kernel says no              | nobody wants it
 *                 v           v                             v
 *              (none)      (none) <-- LEAVING <-- UNREGISTERING <-- RETIRING
 *
 * LEAVING: the driver has let go of it, and queues have not yet (leave.c).
 *
 * The kernel is asked for one registration at a time, and for several unregistrations
 * together, never for both: so a successor can tell what became of the one registration
 * that may have been under way.
 *
 * All on the control thread.  Registering and unregistering are asked of a
 * backend and finish later, through buffers_finished().
 */
#ifndef UBLKZC_SERVER_MEMORY_BUFFERS_H
#define UBLKZC_SERVER_MEMORY_BUFFERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/uapi.h"
#include "common/wire.h"
#include "server/life/vault.h"
#include "account.h"
#include "registry.h"

/* Registrations of a device: each is a mapping, and a process has 65530 at most. */
#define BUFFERS_SLICES_MAX 16384U
/* Of them, those of one user. */
#define BUFFERS_USER_SLICES_MAX 4096U

/* Files of a device, and of one user, who may want much of what does not exist. */
#define BUFFERS_FILES_MAX 16384U
#define BUFFERS_USER_FILES_MAX 4096U

struct file;

/* Who asks the driver; the tests have one of their own. */
struct buffers_backend {
	void *arg;
	/* 0: buffers_finished(@cookie, result) follows.  @reg lives until then. */
	int (*reg)(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie);
	int (*unreg)(void *arg, unsigned int index, void *cookie);
	/* What the driver has, from index @first up: how many of them, or a negative errno.
	 * NULL: it cannot say. */
	int (*list)(void *arg, unsigned int first, struct uapi_shmem_buf_info *ret, unsigned int nr);
	/*
	 * Something was withdrawn from the registry: whoever keeps more of it than its requests did
	 * lets go, and buffers_let_go() follows.  False: nobody has.  NULL: nobody ever does, and
	 * nothing is pinnable.
	 */
	bool (*recall)(void *arg);
};

/*
 * The answer to an add: all that exists of it is registered, or in its turn.  @number is what
 * the use is called.  After an error there is no use.  @client is NULL for the server's own.
 */
typedef void buffers_answer_fn(void *arg, void *client, uint32_t seq, int status,
			       enum wire_reason reason, uint32_t number);

struct slice;

struct slice_queue {
	struct slice *first, **last;
};

struct buffers {
	struct registry *registry;
	struct buffers_backend backend;
	buffers_answer_fn *answer;
	void *answer_arg;
	uint64_t max_bytes; /* all slices together */
	int linger;	    /* ms for which what nobody wants stays registered: plan.c */
	uint64_t bytes;	    /* registered or about to be */
	bool no_feature;    /* the device cannot: every add is refused */
	bool one_at_a_time; /* unregistrations too */
	bool touched;	    /* by loads and stores too, not by system calls alone */
	unsigned int nr;    /* slices */
	unsigned int nr_files;
	unsigned int indices;	    /* one more than the highest so far */
	unsigned int registering;   /* asked of the backend, not answered: 0 or 1 */
	long long asked_at;	    /* ms, that one */
	long long cost;		    /* ms, of an ordinary one: account.h; 0: none yet */
	unsigned int unregistering; /* asked of the backend, not answered */
	uint32_t next_number;	    /* for uses */
	uint64_t copied;	    /* requests that the device has copied so far */
	bool paused;		    /* the driver is asked for nothing */
	bool waits;		    /* a look would be due, if the device copied something */
	bool at_once;		    /* look at memory here and now, on no thread */
	struct vault *vault;	    /* NULL: none */
	struct file *first;
	struct slice_queue to_register, to_unregister, leaving;
	/* Of a predecessor (buffers_restore.c): what is in the driver and nobody knows of. */
	unsigned int unknown, nr_unknown_gone;
	uint64_t unfinished; /* the record of a registration that was under way; 0: none */
	struct {
		unsigned int next, end; /* indices that it may be under; next == end: none */
		unsigned int misses;	/* in a row */
	} search;
	bool asking; /* in buffers_ask() */
	long long (*clock)(void); /* ms; NULL: CLOCK_MONOTONIC */
};

/* What to add; @fd is borrowed for the call. */
struct buffer_request {
	int fd;
	uint64_t offset; /* bytes, page-aligned */
	uint64_t len;	 /* bytes, page-aligned */
	bool read_only;
	void *client;		 /* identity only; NULL: the server itself */
	struct account *account; /* who pays; NULL: nobody but the device */
	uint64_t owner;		 /* the client's id in the vault */
	uint32_t seq;
	/* NULL: that of struct buffers.  A successor does not know of uses with
	 * one: whoever has them asks again. */
	buffers_answer_fn *answer;
	void *answer_arg;
	dev_t dev; /* of the file, for buffers_keep() */
	ino_t ino;
};

/*
 * Returns 0 when the answer will come (perhaps from within this call), or a
 * negative errno with the reason, and then none comes.
 */
int buffers_add(struct buffers *b, const struct buffer_request *req, enum wire_reason *ret_reason);

/*
 * Does @req's client want exactly this already?  Then the use gets @req's seq:
 * 0, or -EALREADY when it had it.  -ENOENT: no.
 */
int buffers_keep(struct buffers *b, const struct buffer_request *req);

/* End the uses by @client with another seq; how many of them had no answer. */
unsigned int buffers_sweep(struct buffers *b, void *client, uint32_t seq);

/* End the use @number of @client.  -ENOENT when it has none. */
int buffers_remove(struct buffers *b, void *client, uint32_t number);

/* End all uses by @client; no answer reaches it, and nothing is charged to it any more. */
void buffers_forget_client(struct buffers *b, void *client);

/* Nothing is charged to anybody any more: the accounts end. */
void buffers_forget_accounts(struct buffers *b);

/* registry_rescues() went up: unregister what is lost, and look at what is left of it. */
void buffers_rescued(struct buffers *b);

/* More of @client's use @number may exist by now: look, soon.  -ENOENT. */
int buffers_look_again(struct buffers *b, void *client, uint32_t number);

/* Registered bytes of what @client wants. */
uint64_t buffers_live_bytes(const struct buffers *b, const void *client);

/*
 * Ask the driver for nothing more, or again: a successor before its device resumes, and a
 * server that is about to hand over.  What is wanted meanwhile waits, and is recorded.
 */
void buffers_pause(struct buffers *b, bool paused);

/* Nothing is asked of the driver now. */
bool buffers_idle(const struct buffers *b);

/* The backend's result: an index or 0, or a negative errno. */
void buffers_finished(struct buffers *b, void *cookie, int res);

/* Nobody keeps anything of the first @withdrawals (registry_withdrawals()) any more. */
void buffers_let_go(struct buffers *b, uint64_t withdrawals);

/*
 * Look at what may have changed; @copied as in struct buffers.  Returns in how many ms it
 * wants to be called again.
 */
int buffers_tick(struct buffers *b, uint64_t copied);

/*
 * What a predecessor left, while paused: its files, who uses them, its slices, in the order of the
 * records.  A slice is published under the index that it has or may have.  @fd is borrowed.
 */
int buffers_restore(struct buffers *b, const struct vault_record *r, int fd);
int buffers_restore_use(struct buffers *b, const struct vault_record *r, void *client,
			struct account *account);

/*
 * The device has resumed: make what the driver has what is wanted.  What it has and no record tells of
 * is unregistered, before anything is registered; what a record tells of and it has not is
 * registered anew.  A driver that cannot list what it has is asked for each index below @indices;
 * 0: the records tell all.
 */
void buffers_resume(struct buffers *b, unsigned int indices);
#define BUFFERS_ALL_INDICES (UAPI_SHMEM_BUF_INDEX_MAX + 1U)

/* Nothing that nobody knows of is left in the driver. */
bool buffers_all_known(const struct buffers *b);

/* ms, of a clock that never goes back. */
long long buffers_now(const struct buffers *b);

/* Unmap everything; the device is gone, so the kernel needs no asking. */
void buffers_close(struct buffers *b);

#endif
