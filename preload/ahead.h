/* SPDX-License-Identifier: MIT */
/*
 * ahead.h - memory that is there before the first request uses it.
 *
 * A server registers what exists.  Blocks were asked for because I/O is to be done in
 * them: so some are populated while there is a session, and what is going to be the
 * next blocks; but never much more than the program has touched itself.  Mappings
 * never are, because programs map more than they use.  What is wholly there is made of
 * huge pages, which are served much faster.
 *
 * Nobody waits long for it: it goes on for a bounded time, and over that only for a
 * small size; what is left comes about when the program touches it.  No lock is held.
 */
#ifndef UBLKZC_PRELOAD_AHEAD_H
#define UBLKZC_PRELOAD_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

#define AHEAD_OPEN_MS(connect_ms) ((connect_ms)*3 / 10) /* of what an open may take: 60 of 200 */
#define AHEAD_LEAST (2UL << 20)				/* of each arena, whatever the clock says */
#define AHEAD_BYTES (8UL << 20) /* populated in all, and a sixteenth of what exists */
#define AHEAD_NEXT (2UL << 20)	/* of the next blocks */
#define AHEAD_BLOCK                                                                                \
	(1088UL                                                                                    \
	 << 10) /* of a block that is handed out: 1 MiB, and what aligning it by hand takes */

/* A session has come about: see to all there is. */
void ahead_prepare(void);

/* A block that was never used is handed out.  True: it exists now. */
bool ahead_block(void *p, size_t len);

#endif
