/* SPDX-License-Identifier: MIT */
/*
 * memfile.h - the memfds that captured memory lives in.
 *
 * Sparse and sealed: they never grow or shrink, and cost what was touched.
 */
#ifndef UBLKZC_PRELOAD_MEMFILE_H
#define UBLKZC_PRELOAD_MEMFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct memfile {
	int fd;	   /* -1: none */
	dev_t dev; /* of the memfd, to recognise fd: programs close what they do not know */
	ino_t ino;
};

/* @huge: flags of memfd_create for huge pages, or 0.  0 or a negative errno. */
int memfile_make(struct memfile *ret, size_t len, unsigned int huge);

/* Does fd still name the memfd? */
bool memfile_valid(const struct memfile *f);

/* Another descriptor of it, or a negative errno. */
int memfile_duplicate(const struct memfile *f);

void memfile_close(struct memfile *f);

/* Give back the memory of a range: it is zero from then on, wherever it is mapped. */
bool memfile_punch(const struct memfile *f, uint64_t offset, size_t len);

/* Call @each for the parts of the range that exist, in memory or in swap.  False: it
 * cannot be asked, nothing was called. */
bool memfile_each_data(const struct memfile *f, uint64_t offset, size_t len,
		       void (*each)(uint64_t offset, size_t len, void *arg), void *arg);

/* Bytes in it that exist; @otherwise when it cannot be asked. */
size_t memfile_resident(const struct memfile *f, size_t otherwise);

#endif
