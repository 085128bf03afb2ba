/* SPDX-License-Identifier: MIT */
/*
 * fake_ceph.h - librados and librbd, as much of them as the engine uses, that do what they are
 * told: a cluster with the pool "pool", which has the image "image", whose snapshot is "snap".
 * Completions come from a thread.
 */
#ifndef UBLKZC_TESTS_RBD_FAKE_CEPH_H
#define UBLKZC_TESTS_RBD_FAKE_CEPH_H

#include <rbd/librbd.h>
#include <stdbool.h>
#include <stdint.h>

#define FAKE_SIZE (1U << 20)

enum fake_call {
	FAKE_READ,
	FAKE_READV,
	FAKE_WRITE,
	FAKE_WRITEV,
	FAKE_FLUSH,
	FAKE_DISCARD,
	FAKE_ZEROES,
	FAKE_CALLS,
};

struct fake {
	/* What goes wrong: 0 or a negative errno. */
	int conf_error, connect_error, open_error, lock_error, blocklist_error;
	int ask_error;	       /* of the call that begins the next I/O, once */
	int io_error;	       /* of the next I/O, once */
	bool short_read;       /* the next read has not all, once */
	unsigned int stranger; /* so many commands to monitors are refused with EPERM */
	uint64_t size;
	uint64_t features;
	const char *conf_image; /* "NAME=VALUE": a setting of the image's own */
	/* What was done. */
	unsigned int calls[FAKE_CALLS];
	int zero_flags;	       /* of the last FAKE_ZEROES */
	char blocklisted[256]; /* addresses, each with a space behind it */
	bool locked, open, connected, read_only;
	uint8_t bytes[FAKE_SIZE];
};

extern struct fake fake;

void fake_reset(void);

/* What was set last with rados_conf_set(); "": nothing. */
const char *fake_conf(const char *name);

/* The image has @size bytes, and its watcher is told. */
void fake_resize(uint64_t size);

#endif
