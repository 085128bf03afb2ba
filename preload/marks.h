/* SPDX-License-Identifier: MIT */
/*
 * marks.h - what a program asked for captured memory that the kernel does not tell.
 *
 * Which addresses are mapped, and how they are protected, the kernel is asked
 * (vmas.h).  Not so what madvise and mlock have set: MADV_WIPEONFORK it does not
 * know for shared mappings, and the others have to be set again when a piece is
 * mapped anew.  A range that was captured once may still be marked when something
 * else lies there: only what is captured now counts.
 *
 * Called with the lock of lock.h held, or by the one thread of a child.
 */
#ifndef UBLKZC_PRELOAD_MARKS_H
#define UBLKZC_PRELOAD_MARKS_H

#include <stdbool.h>
#include <stddef.h>

enum mark { MARK_NONE, MARK_WIPE, MARK_DONTFORK, MARK_LOCKED };

#define MARKS_MAX 1024U /* ranges; more, and madvise and mlock say EAGAIN */

/* False: there is no room. */
bool marks_set(enum mark mark, const void *addr, size_t len);
bool marks_clear(enum mark mark, const void *addr, size_t len);

/* All of them.  Leaves a mark rather than run out of room. */
void marks_clear_all(const void *addr, size_t len);

/* The range lies elsewhere now, and its marks too. */
void marks_move(const void *from, void *to, size_t len);

/* Is any of the range marked so? */
bool marks_any(enum mark mark, const void *addr, size_t len);

/* Call @each for the marked parts of the range. */
void marks_each(enum mark mark, const void *addr, size_t len,
		void (*each)(void *addr, size_t len, void *arg), void *arg);

/* In a child: what is captured there has none. */
void marks_reset(void);

/* madvise and mlock as marked, where the kernel can: after a piece was mapped anew. */
void marks_apply(const void *addr, size_t len);

#endif
