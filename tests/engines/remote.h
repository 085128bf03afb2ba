/* SPDX-License-Identifier: MIT */
/* remote.h - what the engine "remote" and its storage say to each other, over a unix stream. */
#ifndef UBLKZC_TESTS_REMOTE_H
#define UBLKZC_TESTS_REMOTE_H

#include <stdint.h>

#define REMOTE_MAX_IO 65536U

enum remote_op { REMOTE_READ, REMOTE_WRITE, REMOTE_FENCE };

/* A WRITE's data follows it. */
struct remote_request {
	uint32_t op, tag;
	uint64_t offset;
	uint32_t len, pad;
};

/* A READ's data follows it. */
struct remote_reply {
	uint32_t tag;
	int32_t result;
};

#endif
