/* SPDX-License-Identifier: MIT */
/*
 * regions.h - captured mappings: ranges of one sparse memfd.
 *
 * There is one memfd for ordinary pages and one for each size of huge ones.  A
 * region keeps its range until nothing of it is mapped any more; then the range's
 * memory is given back.  Ranges begin 4 GiB from each other, so that the kernel can let a
 * mapping grow: behind a region's end there is nothing in the file.
 */
#ifndef UBLKZC_PRELOAD_REGIONS_H
#define UBLKZC_PRELOAD_REGIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "arena.h"
#include "vmas.h"

/* The function compares the address that is its first argument, and reads nothing there:
 * glibc says so of mlock(), and a compiler that believes it warns of what we call. */
#if defined(__has_attribute) && __has_attribute(access)
#define ADDRESS_ONLY __attribute__((access(none, 1)))
#else
#define ADDRESS_ONLY
#endif

/* What a program asks of mmap; @flags with MAP_PRIVATE|MAP_ANONYMOUS. */
struct region_wish {
	void *addr;
	size_t len; /* bytes, whole pages (huge ones with MAP_HUGETLB) */
	int prot;
	int flags;
};

/* Does the range meet a region, or blocks?  No lock; exact for memory that the
 * caller may rightly name. */
ADDRESS_ONLY bool regions_touch(const void *addr, size_t len);

/* A new region mapped as wished; NULL when that cannot be had.  Lock held. */
struct arena *region_new(const struct region_wish *wish);

/* Something of the range was unmapped or replaced.  Regions of which nothing is left are
 * given up when that is worth looking, and the lock can be had. */
void regions_gone(const void *addr, size_t len);

/* A piece grows to @len, if the kernel will do it: its region's range is that much longer.
 * False: something else is there.  If it will not, back again.  Lock held. */
bool regions_grow(const struct vma *v, size_t len);
void regions_did_not_grow(const struct vma *v, size_t len);

/* A piece lies elsewhere now, or is shorter: @len bytes of it.  Lock held. */
void regions_moved(const struct vma *v, void *to, size_t len);

/* What regions_gone() left for later.  Lock held. */
void regions_tidy(void);

/* The same now, whether it is worth it or not.  Lock held. */
void regions_look(void);

/* In a child: all of them are its own private memory by now. */
void regions_forget(void);

/* Bytes of regions that exist.  No lock. */
size_t regions_resident(void);

bool regions_file_is_ours(dev_t dev, ino_t ino);

#endif
