/* SPDX-License-Identifier: MIT */
/*
 * segments.c - see segments.h.
 *
 * As with a match in one piece, nothing that the list says is used unless it checks out
 * against the registry; a request whose list does not is copied.
 */
#include "segments.h"

static bool find_one(const struct uapi_shmem_seg *seg, const struct registry *r, bool into,
		     struct iovec *ret)
{
	uint64_t addr = (uint64_t)seg->index << 32 | seg->offset;

	if (!seg->len || seg->offset > UINT32_MAX)
		return false;
	ret->iov_base = registry_find(r, addr, seg->len, into);
	ret->iov_len = seg->len;
	return ret->iov_base != NULL;
}

bool segments_find(struct segments *s, uint64_t nr, const struct registry *r, uint32_t len,
		   bool into)
{
	uint64_t sum = 0;

	if (!nr || nr > UAPI_SHMEM_SEGS_MAX)
		return false;
	for (unsigned int i = 0; i < nr; i++) {
		if (!find_one(&s->list[i], r, into, &s->iov[i]))
			return false;
		sum += s->iov[i].iov_len;
	}
	s->nr = (unsigned int)nr;
	return sum == len;
}

bool segments_aligned(const struct segments *s, uint32_t address_align, uint32_t len_align)
{
	for (unsigned int i = 0; i < s->nr; i++)
		if (((uintptr_t)s->iov[i].iov_base & (address_align - 1)) ||
		    (s->iov[i].iov_len & (len_align - 1)))
			return false;
	return true;
}
