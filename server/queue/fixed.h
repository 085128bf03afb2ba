/* SPDX-License-Identifier: MIT */
/*
 * fixed.h - registered memory that a queue's ring has pinned: io_uring's fixed buffers.
 *
 * For I/O on ordinary memory the kernel pins each page of each request; for READ_FIXED and
 * WRITE_FIXED it did so once, when the memory was entered into the ring's table.  From 256 KiB
 * upwards that is most of what a request costs.
 *
 *  - Nothing waits for it.  A buffer is entered in pieces, a piece when as many bytes have gone
 *    through it as it has, one each time the thread wakes; and taken out a few at a time.  So all
 *    of it costs no more than pinning for those requests did, and no wake much more than pinning
 *    for a few large ones.
 *  - No page is allocated for it: only what is pinnable (registry.h) is entered, where a missing
 *    page is an error, and the piece stays out.
 *  - No entry outlives its mapping.  Whoever withdraws a buffer from the registry wakes the
 *    queues and keeps the mapping until fixed_let_go() of each has come that far.  No request
 *    uses it by then, as the driver has confirmed.
 *  - Whatever is refused (RLIMIT_MEMLOCK, no memory, a full table) is I/O as without all this.
 *
 * All on the queue's thread, but for fixed_let_go().
 */
#ifndef UBLKZC_SERVER_FIXED_H
#define UBLKZC_SERVER_FIXED_H

#include <liburing.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/life/state.h"
#include "server/memory/registry.h"

/* The table: for 16 GiB of registered memory at once, the default of --max-io. */
#define FIXED_ENTRIES 4096U

#define FIXED_PIECE (4U << 20) /* bytes; or the largest request, if that is more */

/* Entries that are taken out each time the thread wakes. */
#define FIXED_STEP 4U

struct fixed_buffer;

struct fixed {
	struct io_uring *ring; /* NULL: there is no table */
	const struct registry *registry;
	struct queue_counters *counters;
	uint32_t max_io;
	unsigned int piece_shift;
	struct fixed_buffer **by_index; /* one for each that there can be, demand-zero */
	struct fixed_buffer *first;	/* of all */
	uint16_t *unused;		/* entries of the table, nr_unused of them */
	unsigned int nr_unused;
	bool may_enter; /* not since the thread woke */
	bool refused;	/* nothing more until something goes */
	_Atomic uint64_t let_go;
};

/* Make the table.  0; or a negative errno, and then nothing is ever found. */
int fixed_open(struct fixed *f, struct io_uring *ring, const struct registry *registry,
	       struct queue_counters *counters, uint32_t max_io);

/* The ring is gone, and its table with it. */
void fixed_close(struct fixed *f);

/*
 * Before Linux 6.13 what is taken out of a table is freed when all requests have ended that use
 * any table of the ring; a FETCH by a registered file does for as long as nobody asks for I/O.
 */
bool fixed_needs_plain_files(const struct fixed *f);

/* The entry that has the @len bytes at @data, in buffer @index, or -1. */
int fixed_find(struct fixed *f, unsigned int index, const void *data, size_t len);

/*
 * The thread has woken, and the ring has taken all that was queued: take out what was withdrawn.
 * False: call again soon, there is more.
 */
bool fixed_wake(struct fixed *f);

/* Any thread: nothing is left of the first so many registry_withdrawals(). */
uint64_t fixed_let_go(const struct fixed *f);

#endif
