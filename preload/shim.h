/* SPDX-License-Identifier: MIT */
/*
 * shim.h - is the shim on, for what, and in which process.
 */
#ifndef UBLKZC_PRELOAD_SHIM_H
#define UBLKZC_PRELOAD_SHIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "arena.h"

struct shim {
	_Atomic bool on;	/* allocation wrappers capture at all */
	_Atomic bool watch;	/* descriptor wrappers look at O_DIRECT */
	size_t malloc_min;	/* bytes; SIZE_MAX: malloc is not captured */
	size_t mmap_min;	/* bytes; SIZE_MAX: private mappings are not captured */
	bool no_ahead;		/* no arena before the first captured allocation */
	_Atomic bool sandboxed; /* no system call that libc would not make */
	const char *off_reason; /* why not on; NULL: it is */
	_Atomic int owner;	/* process that the arenas belong to */
};

extern struct shim shim;

/* The arenas' process: false in a child made behind our back (raw clone). */
bool shim_is_owner(void);

/* First arena of a process: from here on forks are watched. */
bool shim_mark_owner(void);

/* After a fork that our handlers saw: the child is the owner of what it has. */
void shim_child_is_owner(void);

#endif
