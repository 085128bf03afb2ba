/* SPDX-License-Identifier: MIT */
/*
 * ahead.h - memory that is there before the first request uses it.
 *
 * A server registers what exists.  Blocks were asked for because I/O is to be done in
 * them: so some are populated while there is a session, and what is going to be the
 * next blocks; but only so much that the program has not touched itself (idle.h).  Mappings
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
#define AHEAD_LEAST (2UL << 20) /* of each arena's blocks, whatever the clock says */
#define AHEAD_FIRST (4UL << 20) /* of the next blocks likewise, at an open */
#define AHEAD_NEXT (2UL << 20)	/* and behind a block that is handed out */
#define AHEAD_BLOCK                                                                                \
	(2112UL                                                                                    \
	 << 10) /* of a block that is handed out: 2 MiB, and what aligning it by hand takes */

/* A session has come about: see to all there is. */
void ahead_prepare(void);

/* A block that was never used is handed out, or whose memory went back.  True: something was
 * populated, or would have been. */
bool ahead_block(void *p, size_t len);

#endif
