/* SPDX-License-Identifier: MIT */
/*
 * bounce.h - a queue's own memory, for data that is not in place: a buffer for each tag.
 *
 * A page is there when it was used once, and would stay: a device that was read from in large
 * requests by a program without the library would hold the whole depth of them for as long as it
 * lives.  So what has not been used for a while is given back, a few MiB each time the thread wakes.
 */
#ifndef UBLKZC_SERVER_BOUNCE_H
#define UBLKZC_SERVER_BOUNCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOUNCE_IDLE_MS 5000	/* after one to two times that it is given back */
#define BOUNCE_STEP (4UL << 20) /* bytes at a time */

struct bounce {
	uint8_t *base; /* demand-zero */
	size_t each;
	size_t len;
	size_t given_back; /* of len, by a trim that is not over */
	bool recent;	   /* used since the last time that it was asked back */
	atomic_bool used;  /* there may be pages */
	atomic_bool asked; /* back */
};

/* Buffers of @each bytes for @nr tags.  0 or -ENOMEM. */
int bounce_open(struct bounce *b, unsigned int nr, size_t each);
void bounce_close(struct bounce *b);

/* That of @tag. */
static inline uint8_t *bounce_of(struct bounce *b, unsigned int tag)
{
	b->recent = true;
	atomic_store_explicit(&b->used, true, memory_order_relaxed);
	return b->base + tag * b->each;
}

/* Any thread, each BOUNCE_IDLE_MS.  True: wake the queue's thread. */
bool bounce_ask(struct bounce *b);

/* The queue's thread, when it wakes.  False: call again soon, there is more. */
bool bounce_trim(struct bounce *b, bool in_use);

#endif
