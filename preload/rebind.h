/* SPDX-License-Identifier: MIT */
/*
 * rebind.h - malloc and calloc, for the programs whose large mallocs are captured.
 *
 * The library exports neither: a program that does not need them calls libc's as
 * if we were not there.  Where they are wanted, the references of the program and
 * of its libraries (their entries in the global offset tables) are pointed here
 * instead.  A reference that is missed costs zero copy, and nothing else:
 * free, realloc and malloc_usable_size are exported and know either kind.
 *
 * libc's own references stay: what it allocates is not for direct I/O, and it
 * allocates under locks that fork needs.
 */
#ifndef UBLKZC_PRELOAD_REBIND_H
#define UBLKZC_PRELOAD_REBIND_H

#include <stddef.h>

struct rebind {
	const char *symbol;
	void *from; /* what it is bound to: the next preload's, or libc's */
	void *to;
};

/* Once, before the program runs: all that is loaded. @list borrowed for ever, ends
 * with an entry without a symbol. */
void rebind_start(const struct rebind *list);

/* This thread is about to load something. */
void rebind_expect(void);

/* What it has loaded, if it has.  Waits for ld.so's lock, so not for calls that
 * would not do so without us. */
void rebind_new(void);

#endif
