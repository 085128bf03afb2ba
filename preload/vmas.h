/* SPDX-License-Identifier: MIT */
/*
 * vmas.h - what of our memory is mapped where, as the kernel has it.
 *
 * A program may have unmapped, moved or replaced captured memory by system calls
 * that no wrapper saw, and protected it page by page.  So nothing is remembered:
 * /proc/self/maps is asked, by its ioctl where the kernel has that (6.11).
 */
#ifndef UBLKZC_PRELOAD_VMAS_H
#define UBLKZC_PRELOAD_VMAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A mapping, or the part of it that was asked for. */
struct vma {
	char *start;
	size_t len; /* bytes */
	uint64_t offset;
	dev_t dev;
	ino_t ino;
	int prot;    /* PROT_* */
	bool shared; /* MAP_SHARED */
};

/*
 * Call @each for the mappings in the range whose file is one of ours; it may change
 * mappings as it likes, because all are asked for first.  False from @each ends it.
 * 0, or a negative errno (no memory), and nothing was called.  Without /proc it is as we
 * mapped it, which is right for blocks.
 */
int vmas_each(const void *addr, size_t len, bool (*each)(const struct vma *v, void *arg),
	      void *arg);

/* The same for all that is mapped shared, wherever it is, and quicker: who knows nothing of
 * our memory need not be told of.  A negative errno also without /proc. */
int vmas_each_shared(bool (*each)(const struct vma *v, void *arg), void *arg);

/* /proc may be out of reach later, in a chroot: keep it open from now on.  False: there
 * is none. */
bool vmas_keep_proc(void);

/* In a child: what is open is about its parent. */
void vmas_forget(void);

/* Does vmas_each() tell what the kernel has? */
bool vmas_can_ask(void);

/* A file below /proc/self, for reading: a descriptor or a negative errno. */
int vmas_open_proc(const char *name);

#endif
