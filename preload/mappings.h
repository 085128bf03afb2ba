/* SPDX-License-Identifier: MIT */
/*
 * mappings.h - the mmap family on captured memory.
 *
 * Captured memory is a shared mapping of a memfd, but the program believes it
 * private and anonymous.  Each function here does to it what the kernel does
 * to private anonymous memory, or refuses with an error that the kernel could
 * have given too.  What is mapped, and how, the kernel knows (vmas.h).  A server may
 * hold the pages: content is overwritten or the mapping replaced.
 *
 * No lock is held in a system call that the program asked for, and none is waited for.  Only a fork
 * that makes memory private keeps these calls, and they it, from coming in between: for the moment
 * of that, mappings_close() and mappings_open().
 *
 * Results: 0 or more, or a negative errno.  Memory that is not captured
 * (regions_touch() false) must not come here.
 */
#ifndef UBLKZC_PRELOAD_MAPPINGS_H
#define UBLKZC_PRELOAD_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "arena.h"
#include "vmas.h"

/* Is this the kind of mmap that direct-I/O buffers come from? */
bool mapping_wanted(size_t len, int prot, int flags);

/* And if this program's mappings were captured? */
bool mapping_would_be_wanted(size_t len, int prot, int flags);

/* A captured mapping for what mapping_wanted(): its address, or NULL. */
void *mapping_new(void *addr, size_t len, int prot, int flags);

/* The system calls, on ranges of which some part is captured. */
long mapping_replace(void *addr, size_t len, int prot, int flags, int fd, long offset);
long mapping_attach(int id, void *addr, int flags); /* shmat() with SHM_REMAP */
int mapping_unmap(void *addr, size_t len);
int mapping_protect(void *addr, size_t len, int prot, int pkey); /* @pkey -1: none */
int mapping_advise(void *addr, size_t len, int advice);
int mapping_lock(long syscall_nr, const void *addr, size_t len, unsigned int flags, bool locked);
long mapping_move(void *old, size_t old_len, size_t len, int flags, void *to);

/* After mlockall(MCL_CURRENT) and munlockall(). */
void mapping_all_locked(bool locked);

/* The range is to be watched by userfaultfd, which knows private memory only as the
 * program does, or to be a thread's stack: it is captured no longer. */
int mapping_give_up(void *addr, size_t len);

/* Ordinary private memory in the place of a captured piece: empty, or with the same
 * content.  Marks and protection stay. */
int mapping_make_anonymous(const struct vma *v, bool keep_content);

/* Around each of these calls. */
void mappings_enter(void);
void mappings_leave(void);

/* Wait until no such call is under way, and let none begin; false: it takes too long. */
bool mappings_close(void);
void mappings_open(void);
void mappings_reset(void); /* in a child */

#endif
