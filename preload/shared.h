/* SPDX-License-Identifier: MIT */
/*
 * shared.h - memory that the program itself shares: MAP_SHARED mappings and
 * SysV segments.
 *
 * It needs no replacement: a server finds it in /proc and maps the same pages.
 * Here is only noted that there is some, and when that changes, so that
 * session.c can tell servers to look.  What is too much to note is looked for
 * at each open instead.
 */
#ifndef UBLKZC_PRELOAD_SHARED_H
#define UBLKZC_PRELOAD_SHARED_H

#include <stddef.h>

#define SHARED_MIN (1UL << 20) /* bytes; the server's limit too */
#define SHARED_NOTED_MAX 64U   /* ranges whose end is noticed */

/* The program has mapped or attached this; @len 0: it is not known how much. */
void shared_note(const void *addr, size_t len);

/* It has unmapped this. */
void shared_gone(const void *addr, size_t len);

/* Grows with each change; 0: there was never anything. */
unsigned int shared_generation(void);

#endif
