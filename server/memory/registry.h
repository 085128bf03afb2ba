/* SPDX-License-Identifier: MIT */
/*
 * registry.h - registered buffers, by the kernel's index.
 *
 * Written by the control thread only, read by the queue threads.  An entry
 * is published after the kernel has named its index, and withdrawn only after
 * the kernel has confirmed the unregistration, which it does when no request
 * uses the buffer any more: so a queue thread that sees an entry may use it
 * until its request is completed, without a lock or a reference.
 */
#ifndef UBLKZC_SERVER_REGISTRY_H
#define UBLKZC_SERVER_REGISTRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/uapi.h"

/* One mapping of a buffer; immutable while published. */
struct buffer_view {
	uint8_t *base; /* mapped here, in the server */
	uint64_t len;  /* bytes */
	bool read_only;
	bool pinnable; /* by a ring: it is mapped for writing, and no pin will allocate a page */
};

/*
 * Wakes the control thread: when memory was rescued, and when a request was copied that it had
 * nothing registered for; that once, until it is set again.
 */
struct registry_alarm {
	atomic_bool set;
	int fd; /* eventfd */
};

struct registry {
	struct registry_alarm *alarm; /* NULL: none */
	_Atomic(const struct buffer_view *) entries[UAPI_SHMEM_BUF_INDEX_MAX + 1];
	atomic_uint nr;
	atomic_uint unanswered; /* wishes of clients: their memory is on its way in here */
	atomic_uint rescues;	/* rescue.h: how often */
	atomic_uint rescuers;	/* and who looks at mappings, or exchanges one, right now */
	_Atomic uint64_t withdrawals;
};

/* @view is borrowed until registry_withdraw().  -EEXIST, -ERANGE. */
int registry_publish(struct registry *r, unsigned int index, const struct buffer_view *view);
/* Also from a signal handler. */
void registry_withdraw(struct registry *r, unsigned int index);

/*
 * After registry_withdraw(), before what was published goes: who rescues looks at all that is
 * published, and may be about to put memory there.
 */
void registry_wait(const struct registry *r);
/* How many there have been.  What was withdrawn before is not found any more by who asks. */
uint64_t registry_withdrawals(const struct registry *r);

/*
 * What is published under @index now, or NULL.  For who keeps something of it from one request to
 * the next: no two views have one address until all have let go (queue/fixed.h).
 */
const struct buffer_view *registry_entry(const struct registry *r, unsigned int index);

/* Any thread.  False: nothing is published under @index (yet). */
bool registry_view(const struct registry *r, unsigned int index, struct buffer_view *ret);

/*
 * The @len bytes that the driver names with @addr (uapi_shmem_index() and
 * uapi_shmem_offset()), which are to be written if @into.  NULL: there is no such
 * buffer, they do not all lie in it, or it must not be written.  Whatever the
 * driver names, what is returned lies inside one buffer.
 */
uint8_t *registry_find(const struct registry *r, uint64_t addr, uint32_t len, bool into);

/*
 * How often a mapping was exchanged under code that touches it (rescue.h).  Who asks before
 * registry_find() and gets the same answer when all is done has touched nothing but the client's
 * memory.
 */
unsigned int registry_rescues(const struct registry *r);

/* Wake the control thread.  Also from a signal handler. */
void registry_ring(const struct registry *r);

bool registry_any(const struct registry *r);

/* A client has asked for something to be in here, and has got its answer (or has gone). */
void registry_asked(struct registry *r);
void registry_answered(struct registry *r);

/* Any thread: is somebody waiting for that? */
bool registry_unanswered(const struct registry *r);

/* Any thread: a request was copied, as its memory is not registered. */
void registry_missed(const struct registry *r);

#endif
