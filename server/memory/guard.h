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
#include <stdint.h>

/* Before system calls are filtered, which it needs one of. */
void guard_open(void);

/* False: this kernel cannot.  Then holes are only looked for before memory is registered. */
bool guard_works(void);

/*
 * Map memory of a client's, guarded before anybody can touch it.  0 or a negative errno;
 * *@ret_guard: 0, or why the mapping is not guarded (-EPERM: its file is not open for writing);
 * NULL: it is not to be.
 */
int guard_map(int fd, uint64_t offset, size_t len, int prot, void **ret_base, int *ret_guard);

#endif
