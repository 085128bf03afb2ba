/* SPDX-License-Identifier: MIT */
/* fork_steps.h - the ways to repair a fork; fork.c chooses, fork.h explains. */
#ifndef UBLKZC_PRELOAD_FORK_STEPS_H
#define UBLKZC_PRELOAD_FORK_STEPS_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes that exist and that parent and child would share, though they must not. */
size_t fork_live_bytes(void);

/*
 * In the parent, before the fork, with the lock held: everything is copy-on-write from
 * here on.  False: at least a part is not, and has to be copied.
 */
bool fork_make_private(void);

/*
 * In the parent, before a fork whose child will copy: the stack about @top, on which the
 * child or this thread go on, is taken out of what they share, if it was captured.
 */
void fork_own_stack(const void *top);

/* Give back what nobody can see any more, once children are gone.  Lock held. */
void fork_tidy_private(void);

/*
 * In the child: private memory with the same content in the place of all that is
 * shared.
 */
void fork_copy(void);

#endif
