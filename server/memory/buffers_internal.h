/* SPDX-License-Identifier: MIT */
/* buffers_internal.h - files, uses and slices, for buffers.c and the files beside it. */
#ifndef UBLKZC_SERVER_MEMORY_BUFFERS_INTERNAL_H
#define UBLKZC_SERVER_MEMORY_BUFFERS_INTERNAL_H

#include <stddef.h>

#include "buffers.h"

enum slice_state { WAITING, REGISTERING, LIVE, RETIRING, UNREGISTERING, LOST, LEAVING };

struct slice {
	struct slice *next; /* of the file, by offset */
	struct file *file;
	uint64_t offset;
	enum slice_state state;
	bool unwanted; /* REGISTERING: to be unregistered at once */
	bool doubtful; /* the driver may not have it: what a predecessor had not finished */
	bool unknown;  /* the driver has it, or may; it is in no record, and nobody's */
	unsigned int index; /* LIVE and later */
	uint64_t id;	    /* in the vault; 0: not there */
	struct slice *next_queued;
	struct account *account; /* charged with it; NULL: nobody */
	/* base NULL: a predecessor's, which could not be mapped: its requests are copied */
	struct buffer_view view;
	struct uapi_shmem_buf_reg reg; /* the kernel reads it while registering */
	long long held_until;	       /* ms: not retired before; 0: may be */
	bool idle;		       /* nobody wants it, but somebody may come back */
	uint64_t withdrawal;	       /* LEAVING: its own, of registry_withdrawals() */
};

struct use {
	struct use *next;
	void *client;
	struct account *account;
	uint64_t offset, len;
	bool read_only;
	uint32_t seq;
	uint32_t number; /* its name */
	uint64_t id;	 /* in the vault; 0: not there */
	enum { NOT_LOOKED, BEING_LOOKED, LOOKED } looked;
	bool answered;
	buffers_answer_fn *answer; /* NULL: that of struct buffers */
	void *answer_arg;
};

struct file {
	struct file *next;
	dev_t dev;
	ino_t ino;
	int fd; /* opened by us, so that its position is ours */
	uint64_t huge_page; /* bytes; 0: not on hugetlbfs */
	uint64_t id;	    /* in the vault; 0: not there */
	struct use *uses;
	struct slice *slices;
	unsigned int held;  /* not to be freed meanwhile */
	struct account *account; /* of the user who brought it; NULL: nobody's, any more */
	uid_t user;	    /* whose threads work for it */
	struct look *look;  /* under way; NULL: none is */
	bool again;	    /* and once more after that */
	bool stale;	    /* what it finds may not be wanted any more */
	bool suspect;	    /* a server died while it was registered: nothing more of it is */
	int refused;	    /* why there are not all the slices of the last look, or 0 */
	enum wire_reason why;
	unsigned int made;     /* slices, by this look */
	unsigned int left;     /* gaps, that nobody could pay for */
	bool waits;	       /* somebody, for his turn */
	unsigned int refusals; /* by the driver, since it last agreed */
	bool over_budget;   /* the last look found more than may be registered */
	bool due;	    /* look again even if nothing is copied */
	long long looked_at; /* ms */
	long long next_look; /* ms */
	int interval;	    /* ms, to the look after that */
	uint64_t copied;    /* b->copied at the last look */
	long long review_at; /* ms, when a slice is no longer held; 0: none is */
};

static inline uint64_t slice_end(const struct slice *s)
{
	return s->offset + s->view.len;
}

static inline bool is_covering(const struct slice *s)
{
	return (s->state == WAITING || s->state == REGISTERING || s->state == LIVE) && !s->unwanted;
}

/* buffers.c: files and uses */
struct file *buffers_new_file(struct buffers *b, int fd, dev_t dev, ino_t ino);
/* Free it if nothing needs it any more. */
void buffers_put_file(struct buffers *b, struct file *file);
struct use *buffers_new_use(struct buffers *b, struct file *file, const struct use *like);
/* Does somebody want all of it, or a part of it? */
bool file_wants_all(const struct file *file, uint64_t offset, uint64_t len);
bool file_wants_writable(const struct file *file);
/* Unmap memory, and close its file (-1: none), for @user and without waiting for it. */
void buffers_give_back(uid_t user, void *base, size_t len, int fd);
/* Nothing more of @file is registered, now or by a successor. */
void buffers_suspect(struct buffers *b, struct file *file);
/* Answer what can be answered now. */
void buffers_settle(struct buffers *b, struct file *file);

/* plan.c: from wishes to slices */
void buffers_look(struct buffers *b, struct file *file);
void buffers_cancel_look(struct file *file);
/* After wishes ended: retire what nobody wants. */
void buffers_review(struct buffers *b, struct file *file);

/* buffers_restore.c: is there one of these (more) in the driver?  Then it is queued. */
void buffers_search(struct buffers *b);
/* The driver has answered for one of them. */
void buffers_unknown_gone(struct buffers *b, int res);

/* slices.c: from slices to the driver */
/* A slice that is not asked for yet.  0 or a negative errno. */
int slice_new(struct buffers *b, struct file *file, uint64_t offset, uint64_t len, bool read_only,
	      struct slice **ret);
/* A predecessor's; what cannot be mapped has no base. */
int slice_restore(struct buffers *b, struct file *file, const struct vault_record *r,
		  struct slice **ret);
/* What the driver has under @index, and nobody knows of: to be unregistered. */
int slice_unknown(struct buffers *b, struct file *file, unsigned int index);
void slice_free(struct buffers *b, struct slice *s);
void slice_set_account(struct slice *s, struct account *account);
/* Ask for it when its turn comes. */
void slice_register(struct buffers *b, struct slice *s);
/* It is not wanted any more, whatever its state. */
void slice_retire(struct buffers *b, struct slice *s);
void slice_note(struct buffers *b, struct slice *s, enum vault_buffer_state state);
int slice_publish(struct buffers *b, struct slice *s, unsigned int index);
void slice_queue_append(struct slice_queue *q, struct slice *s);
struct slice *slice_queue_take(struct slice_queue *q); /* the first of some */
/* Ask the driver for what may be asked now. */
void buffers_ask(struct buffers *b);

/* leave.c: from slices to nothing */
/* The driver does not have it any more, and it is withdrawn. */
void slice_leave(struct buffers *b, struct slice *s);

#endif
