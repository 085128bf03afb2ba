/* SPDX-License-Identifier: MIT */
/* bounce.c - see bounce.h. */
#include "bounce.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

int bounce_open(struct bounce *b, unsigned int nr, size_t each)
{
	size_t len = nr * each;
	void *map = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return -ENOMEM;
	*b = (struct bounce){ .base = map, .each = each, .len = len };
	return 0;
}

void bounce_close(struct bounce *b)
{
	if (b->base)
		munmap(b->base, b->len);
	b->base = NULL;
}

bool bounce_ask(struct bounce *b)
{
	if (!atomic_load_explicit(&b->used, memory_order_relaxed))
		return false;
	atomic_store_explicit(&b->asked, true, memory_order_relaxed);
	return true;
}

/* Nothing to do: not asked, or it is used again, or by something that takes long. */
static bool may_stay(struct bounce *b, bool in_use)
{
	if (!b->given_back && !atomic_load_explicit(&b->asked, memory_order_relaxed))
		return true;
	atomic_store_explicit(&b->asked, false, memory_order_relaxed);
	if (!in_use && !b->recent)
		return false;
	b->given_back = 0;
	b->recent = false;
	return true;
}

/* The server has its memory locked (life/reclaim.h), where it may: then it is the first. */
static void give_back(void *at, size_t len)
{
	if (madvise(at, len, MADV_DONTNEED_LOCKED) < 0)
		madvise(at, len, MADV_DONTNEED);
}

bool bounce_trim(struct bounce *b, bool in_use)
{
	size_t left = b->len - b->given_back;

	if (may_stay(b, in_use))
		return true;
	left = left < BOUNCE_STEP ? left : BOUNCE_STEP;
	give_back(b->base + b->given_back, left);
	b->given_back += left;
	if (b->given_back < b->len)
		return false;
	b->given_back = 0;
	atomic_store_explicit(&b->used, false, memory_order_relaxed);
	return true;
}
