/* SPDX-License-Identifier: MIT */
/*
 * state.h - what a running server shows of itself.
 *
 * One file per device, /run/ublkzc/ublkbN.stat, mapped by the server and by
 * whoever asks (ublkzc list, stat, del).  Reading it needs no help from the
 * server, so it works on one that hangs or is dead.  Counters are written by
 * one thread each and never read back by it; readers may see a request's
 * counters a moment apart.
 *
 * The layout is private to one version of ublkzc: state_open() refuses a
 * file with another STATE_VERSION.
 */
#ifndef UBLKZC_SERVER_STATE_H
#define UBLKZC_SERVER_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "copied.h"
#include "latency.h"

#define STATE_DIR "/run/ublkzc"
#define STATE_MAGIC 0x7a6b6c62757a7567ULL
#ifndef STATE_VERSION /* tests build a program of another version: tests/faults */
#define STATE_VERSION 6
#endif
#define STATE_PATH_MAX 256 /* bytes of a backing path that are shown */

typedef _Atomic uint64_t counter_t;

/* Single writer: a plain add that readers never see torn. */
static inline void counter_add(counter_t *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline uint64_t counter_get(const counter_t *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

struct op_counters {
	counter_t zero_copy_requests;
	counter_t zero_copy_bytes;
	counter_t copied_requests;
	counter_t copied_bytes;
};

struct queue_counters {
	_Alignas(64) struct op_counters read;
	struct op_counters write;
	/* requests that were copied, by why */
	counter_t copied_no_feature;
	counter_t copied_nothing_registered;
	counter_t copied_other_memory;
	counter_t copied_unknown_buffer; /* matched, but not (yet) known to us */
	counter_t copied_misaligned;	 /* scattered, and misaligned for the storage behind */
	counter_t flushes;
	counter_t discards;
	counter_t write_zeroes;
	counter_t errors;
	counter_t bounced;   /* zero-copy, but misaligned for the storage behind */
	counter_t scattered; /* zero-copy, and in several places of registered memory */
	counter_t fixed;     /* zero-copy, in memory that the ring had pinned */
	counter_t fixed_refused; /* times that it could not pin more of it */
	counter_t fixed_bytes;	 /* a gauge: that it has pinned now */
	counter_t
		copied_unanswered_bytes; /* while a client waited for its memory to be registered */
	struct latency read_time;	 /* from when the server has a request to its answer */
	struct latency write_time;
};

struct state {
	uint64_t magic;
	uint32_t version;
	uint32_t device;     /* N of /dev/ublkbN */
	int32_t pid;	     /* of the server, for people */
	int32_t keeper;	     /* of its parent, which replaces it; 0: none; for people */
	uint32_t recoveries; /* servers that took over */
	uint32_t nr_queues;
	uint32_t depth;
	uint32_t block_size; /* bytes */
	uint64_t size;	     /* bytes */
	uint8_t shmem_zc;
	uint8_t read_only;
	uint8_t pad[6];
	char target[16];
	char path[STATE_PATH_MAX]; /* empty: none */
	counter_t buffers;	   /* gauges, not counters: set, not added to */
	counter_t buffer_bytes;
	counter_t clients;
	counter_t refused; /* requests of clients that were refused */
	counter_t indices; /* one more than the highest index of a buffer so far */
	struct copied copied;
	struct queue_counters queues[];
};

/* Create @dir, for everybody to look into whatever the umask; it may be there already. */
int state_make_dir(const char *dir);

/*
 * Create the file for @device, whose lock (lock.h) the caller holds.  An older file stays
 * as it is for those who look at it.
 */
int state_create(unsigned int device, unsigned int nr_queues, struct state **ret, int *ret_fd);

/* Go on with the file that a predecessor created.  -EBADMSG: another version's. */
int state_adopt(int fd, struct state **ret);

/* This process serves the device now: not before it is live, because others wait for that. */
void state_taken_over(struct state *state);

/* Map an existing one read-only.  -ENOENT: no such server. */
int state_open(unsigned int device, const struct state **ret);
void state_close(const struct state *state);

/* Remove the device's files below STATE_DIR and the sockets. */
void state_remove(unsigned int device);

/* Is the device served, or about to be again? */
bool state_alive(const struct state *state);

/* Call @each for every device that has a state file, in order of number. */
int state_for_each(int (*each)(unsigned int device, void *arg), void *arg);

/* Sum of all queues. */
void state_sum(const struct state *state, struct queue_counters *ret);

#endif
