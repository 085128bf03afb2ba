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
	bool off;	   /* the shim does nothing */
};

/*
 * Lines of "PROGRAM word..." ('#' begins a comment, ';' ends a line too): malloc,
 * malloc=BYTES, mmap, mmap=BYTES, no-ahead, off.  The last line for a program
 * counts, and replaces what is built in.
 */
#define PROFILES_FILE_MAX 65536 /* bytes */

/* The profile of @program: UBLKZC_PROFILE's, UBLKZC_PROFILES' (files of lines, or directories with
 * a file for each program), or what is built in.  Says what is malformed. */
const struct profile *profile_choose(const char *program);

/* Parse @len bytes of lines; a line for @program goes to @ret.  True: there was
 * one.  @source is for complaints. */
bool profile_parse(const char *text, size_t len, const char *program, const char *source,
		   struct profile *ret);

/* What is built in.  @program: the basename it was started as.  Never NULL: unknown programs
 * have the empty profile. */
const struct profile *profile_of(const char *program);

#endif
