/* SPDX-License-Identifier: MIT */
/*
 * segments.h - a request whose data is in several places of registered memory.
 *
 * With UAPI_F_SHMEM_SEGS, an extension of kernel-patch/, the driver writes down where: a
 * list for each tag, in memory of ours.  Decoded it is what readv() takes.
 */
#ifndef UBLKZC_SERVER_SEGMENTS_H
#define UBLKZC_SERVER_SEGMENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/uapi.h"
#include "server/memory/registry.h"

/* One for each tag.  The driver writes the list before it hands the request over. */
struct segments {
	struct uapi_shmem_seg list[UAPI_SHMEM_SEGS_MAX];
	struct iovec iov[UAPI_SHMEM_SEGS_MAX];
	unsigned int nr; /* of iov */
};

/*
 * Look up the first @nr entries of the list, which must have @len bytes together and are to
 * be written if @into.  False: as registry_find(), for any of them.
 */
bool segments_find(struct segments *s, uint64_t nr, const struct registry *r, uint32_t len,
		   bool into);

/* Does every segment begin and end where these powers of two allow it? */
bool segments_aligned(const struct segments *s, uint32_t address_align, uint32_t len_align);

#endif
