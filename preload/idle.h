/* SPDX-License-Identifier: MIT */
/*
 * idle.h - memory that was populated for blocks, and that the program may never use.
 *
 * There is only so much of it at a time.  What turns out to be used - there is something in it,
 * or it was given back - makes room for more: so a program that fills its blocks has all of
 * them populated, and one that does not, little.  Pages that the program has filled with zeroes
 * alone cannot be told from those it never touched, and count as idle.
 *
 * No lock: threads that are too many at once find no room.
 */
#ifndef UBLKZC_PRELOAD_IDLE_H
#define UBLKZC_PRELOAD_IDLE_H

#include <stdbool.h>
#include <stddef.h>

#include "memfile.h"

#define IDLE_BYTES (10UL << 20) /* and a sixteenth of what exists; less what is free: */
#define IDLE_FREE (4UL << 20)	/* of that, no more than this */

/* May @len bytes more of @f be populated? */
bool idle_room(const struct memfile *f, size_t len);

/* @made bytes of [@at, @at + @len) were, in whole pages of @f from @offset on. */
void idle_note(const struct memfile *f, uint64_t offset, char *at, size_t len, size_t made);

#endif
