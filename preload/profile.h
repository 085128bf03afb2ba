/* SPDX-License-Identifier: MIT */
/* profile.h - where particular programs take their direct-I/O buffers from. */
#ifndef UBLKZC_PRELOAD_PROFILE_H
#define UBLKZC_PRELOAD_PROFILE_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes from which on malloc and anonymous mmap are captured where a profile
 * or UBLKZC_CAPTURE turns them on without a number. */
#define PROFILE_MALLOC_MIN 4096
#define PROFILE_MMAP_MIN (1UL << 20)

struct profile {
	const char *program;
	size_t malloc_min; /* bytes; 0: malloc is not captured */
	size_t mmap_min;   /* bytes; 0: private mappings are not captured */
	bool no_ahead;	   /* no arena before the first captured allocation */
};

/* @program: the basename it was started as.  Never NULL: unknown programs
 * have the empty profile. */
const struct profile *profile_of(const char *program);

#endif
