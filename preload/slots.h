/* SPDX-License-Identifier: MIT */
/*
 * slots.h - small blocks: granules cut up into slots of 512, 1024 or 2048 bytes.
 *
 * Disks are addressed by sectors of 512 bytes, and programs that do direct I/O sector
 * by sector have many such buffers: a page for each would be four times too much.
 *
 * Called with the lock held, but for what says otherwise.
 */
#ifndef UBLKZC_PRELOAD_SLOTS_H
#define UBLKZC_PRELOAD_SLOTS_H

#include "runs.h"

#define SLOT_SHIFT_MIN 9U
#define SLOT_SHIFT_MAX 11U /* larger ones are runs */

/* Is a block of that size and alignment a slot?  Its size is 2^*ret.  No lock. */
bool slot_fits(size_t size, size_t align, unsigned int *ret);

/* A slot of 2^@shift bytes in a granule that has room; NULL: there is none, and
 * slot_cut() is to make one of a run of one granule. */
void *slot_take(unsigned int shift);
void slot_cut(struct arena *a, uint32_t at, unsigned int shift);

/* Free those of @bits, which are taken.  True: it was the granule's last one, and the
 * granule is a used run again. */
bool slot_give_back(struct arena *a, uint32_t at, uint8_t bits);

/* The bit of the slot at @offset bytes in the granule at @at; 0: there starts none. */
static inline uint8_t slot_bit(const struct arena *a, uint32_t at, size_t offset)
{
	unsigned int shift = a->granules[at].slot_shift;

	return offset & ((1UL << shift) - 1) ? 0 : (uint8_t)(1U << (offset >> shift));
}

/* Forget the lists: in a child, where nothing is made of what it inherited. */
void slots_forget(void);

#endif
