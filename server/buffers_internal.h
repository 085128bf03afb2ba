/* SPDX-License-Identifier: MIT */
/* buffers_internal.h - a buffer, for buffers.c and buffers_restore.c. */
#ifndef UBLKZC_SERVER_BUFFERS_INTERNAL_H
#define UBLKZC_SERVER_BUFFERS_INTERNAL_H

#include <sys/stat.h>

#include "buffers.h"

/* Asked of the driver at a time: each occupies a worker of the kernel while it waits. */
#define UNREGISTERING_MAX 16U

enum buffer_state { REGISTERING, LIVE, UNREGISTERING };

/* One add by one client. */
struct use {
	struct use *next;
	void *client;
	uint32_t seq;
	uint64_t id; /* in the vault; 0: not there */
	bool answered;
	buffers_answer_fn *answer; /* NULL: that of struct buffers */
	void *answer_arg;
};

struct buffer {
	struct buffer *next;
	dev_t dev;
	ino_t ino;
	uint64_t offset;
	enum buffer_state state;
	unsigned int index; /* meaningful when not REGISTERING */
	uint64_t id;	    /* in the vault; 0: not there */
	struct buffer *next_waiting;
	struct buffer_view view;
	struct uapi_shmem_buf_reg reg; /* the kernel reads it while registering */
	struct use *uses;
};

/* Map @req's range and add it to the list; its state is the caller's. */
int buffers_map(struct buffers *b, const struct stat *st, const struct buffer_request *req,
		struct buffer **ret);

/* Ask for @buf's state when its turn comes, which buffers_ask_waiting() sees. */
void buffers_append_waiting(struct buffers *b, struct buffer *buf);
void buffers_ask_waiting(struct buffers *b);

/* Answer the uses of @buf that have no answer yet. */
void buffers_answer_uses(struct buffers *b, struct buffer *buf, int status,
			 enum wire_reason reason);

/* Tell the vault what @buf's state is, and its memory unless @fd is -1. */
void buffers_note(struct buffers *b, struct buffer *buf, enum vault_buffer_state state, int fd);

#endif
