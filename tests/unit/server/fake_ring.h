/* SPDX-License-Identifier: MIT */
/*
 * fake_ring.h - an io_uring without a kernel, for tests of what is above it.
 *
 * Link with FAKE_RING_WRAPS (CMakeLists.txt): liburing's calls into the kernel come here.
 * What is submitted is handed to the test, one entry at a time and on the thread that
 * submits; the test posts completions.  One ring at a time.
 */
#ifndef UBLKZC_TESTS_FAKE_RING_H
#define UBLKZC_TESTS_FAKE_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <sys/uio.h>

#define FAKE_RING_TABLE 4096

struct fake_ring {
	/* The test's. */
	void (*submitted)(const struct io_uring_sqe *sqe);
	void (*wait)(void); /* somebody waits for completions: post some, or set an error */
	int init_errors[4]; /* of the first calls to set up a ring; 0: works */
	int register_error;
	int submit_error; /* of one submission, which then is not done */
	int wait_error;	  /* of one look for completions */
	int sparse_error; /* of the table of fixed buffers */
	int update_error; /* of its changes */
	unsigned int features;
	/* To look at. */
	unsigned int nr_inits;
	unsigned int init_flags[4];
	bool open;
	/* The table of fixed buffers. */
	struct iovec table[FAKE_RING_TABLE];
	unsigned int nr_table; /* entries that there are */
	unsigned int nr_entered, most_entered, nr_updates;
};

extern struct fake_ring fake_ring;

void fake_ring_post(uint64_t user_data, int res);

#endif
