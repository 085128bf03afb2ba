/* SPDX-License-Identifier: MIT */
/*
 * kernel.h - what of the kernel the driver's blocks need, in user space.
 *
 * Small arrays for xarrays, no RCU (nobody reads meanwhile), and allocations that fail when told
 * to, unless they must not.
 */
#ifndef UBLKZC_TESTS_DRIVER_KERNEL_H
#define UBLKZC_TESTS_DRIVER_KERNEL_H

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NR_SLOTS 1024U

typedef unsigned int gfp_t;
#define GFP_KERNEL 0U
#define GFP_KERNEL_ACCOUNT 0U
#define __GFP_NOFAIL 1U

#define __counted_by(member)
#define UBLK_SHMEM_BLOCK_SHIFT 3 /* small, so that runs meet and cross them */
#define UBLK_SHMEM_INDEX_MAX USHRT_MAX
#define XA_LIMIT(min, max) (max)
#define struct_size(p, member, nr) (sizeof(*(p)) + sizeof((p)->member[0]) * (nr))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define kfree_rcu(p, member) kfree(p)
#define percpu_ref_reinit(ref) ((void)(ref))

struct rcu_head {
	void *next;
};
struct percpu_ref {
	int count;
};
struct completion {
	int done;
};
struct mm_struct;
struct user_struct;
struct xarray {
	void *slot[NR_SLOTS];
};
struct ublk_shmem {
	struct xarray bufs, blocks;
};

struct ublk_shmem_buf;
int ublk_shmem_insert(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf);
void ublk_shmem_erase(struct ublk_shmem *shmem, const struct ublk_shmem_buf *buf);

static int fail_after = -1; /* so many allocations, all others fail; -1: none does */
static long nr_allocated;

static bool allocation_fails(gfp_t gfp)
{
	if (gfp & __GFP_NOFAIL || fail_after < 0)
		return false;
	return fail_after == 0 || fail_after-- == 0;
}

static void *kmalloc(size_t bytes, gfp_t gfp)
{
	if (allocation_fails(gfp))
		return NULL;
	nr_allocated++;
	return malloc(bytes);
}

static void kfree(void *p)
{
	nr_allocated--;
	free(p);
}

static void *kvmalloc_array(size_t nr, size_t bytes, gfp_t gfp)
{
	return kmalloc(nr * bytes, gfp);
}

static void kvfree(void *p)
{
	kfree(p);
}

static void cond_resched(void)
{
}

static void *xa_load(const struct xarray *xa, unsigned long index)
{
	assert(index < NR_SLOTS);
	return xa->slot[index];
}

/* Only a new entry may need memory. */
static void *xa_store(struct xarray *xa, unsigned long index, void *entry, gfp_t gfp)
{
	void *old = xa_load(xa, index);

	if (entry && !old && allocation_fails(gfp))
		return (void *)(long)-ENOMEM;
	xa->slot[index] = entry;
	return old;
}

static int xa_err(void *entry)
{
	return entry == (void *)(long)-ENOMEM ? -ENOMEM : 0;
}

static void xa_erase(struct xarray *xa, unsigned long index)
{
	xa->slot[index] = NULL;
}

static int xa_alloc(struct xarray *xa, unsigned int *index, void *entry, unsigned int limit,
		    gfp_t gfp)
{
	if (allocation_fails(gfp))
		return -ENOMEM;
	for (unsigned int i = 0; i < NR_SLOTS && i <= limit; i++) {
		if (xa->slot[i])
			continue;
		xa->slot[i] = entry;
		*index = i;
		return 0;
	}
	return -EBUSY;
}

static void sort(void *base, size_t nr, size_t bytes, int (*compare)(const void *, const void *),
		 void *swap)
{
	(void)swap;
	qsort(base, nr, bytes, compare);
}

#endif
