/* SPDX-License-Identifier: MIT */
/* procdir.h - the entries of a folder below /proc/self. */
#ifndef UBLKZC_PRELOAD_PROCDIR_H
#define UBLKZC_PRELOAD_PROCDIR_H

#include <stdbool.h>

/*
 * Call @each for the entries, with a descriptor of the folder; what is not NULL ends it and
 * goes to @ret.  False: the folder cannot be read.
 */
bool procdir_each(const char *folder, const char *(*each)(int dir, const char *name, void *arg),
		  void *arg, const char **ret);

#endif
