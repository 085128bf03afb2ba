/* SPDX-License-Identifier: MIT */
/*
 * guard.h - mappings that never allocate.
 *
 * A page that is missing in a client's file would be allocated by whoever touches it first
 * through our mapping: the driver's pin, or I/O on a buffer that its owner has punched a
 * hole into; and we would be charged for it.  So each mapping is put under
 * userfaultfd(2) with UFFD_FEATURE_SIGBUS: touching a missing page fails with EFAULT, and
 * nobody is ever asked to provide one.
 */
#ifndef UBLKZC_SERVER_MEMORY_GUARD_H
#define UBLKZC_SERVER_MEMORY_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* Before system calls are filtered, which it needs one of. */
void guard_open(void);

/* False: this kernel cannot.  Then holes are only looked for before memory is registered. */
bool guard_works(void);

/* Guard a fresh shared mapping of memory.  -EPERM: its file is not open for writing. */
int guard_arm(void *base, size_t len);

#endif
