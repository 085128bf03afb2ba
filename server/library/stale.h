/* SPDX-License-Identifier: MIT */
/*
 * stale.h - unregister what a dead predecessor had registered.
 *
 * Nobody has that memory any more, but the driver still names it, and holds its pages. Our
 * driver lists what it has. Others are asked index by index, from 0: they give the lowest
 * free one to each registration, so a long row of unused ones is the end.
 *
 * Until it is over nothing is registered, or it could be unregistered by mistake.
 */
#ifndef UBLKZC_SERVER_LIBRARY_STALE_H
#define UBLKZC_SERVER_LIBRARY_STALE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/uapi.h"

#define STALE_AT_ONCE 1U  /* for the kernel's workers: ctrl_add_worker() */
#define STALE_MISSES 256U /* indices in a row that are not used */

struct stale {
	bool listed; /* by the driver; else all may be in use */
	uint8_t indices[(UAPI_SHMEM_BUF_INDEX_MAX + 1) / 8]; /* those listed */
	unsigned int next;
	unsigned int asked;  /* without an answer yet */
	unsigned int misses; /* in a row */
	unsigned int dropped;
};

/* Which index is next, or -1: none, for now or for good. */
int stale_next(struct stale *s);

/* What the driver said of one: 0 or a negative errno. */
void stale_answered(struct stale *s, int result);

/* All have been asked for and answered. */
bool stale_done(const struct stale *s);

#endif
