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
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NR_SLOTS 1024U

typedef unsigned int gfp_t;
#define GFP_KERNEL 0U
#define GFP_KERNEL_ACCOUNT 0U
#define __GFP_NOFAIL 1U

#define __counted_by(member)
#define UBLK_SHMEM_BLOCK_SHIFT 3 /* small, so that runs meet and cross them */
#define UBLK_SHMEM_BLOCK_PAGES (1UL << UBLK_SHMEM_BLOCK_SHIFT)
#define UBLK_SHMEM_INDEX_MAX USHRT_MAX
#define UBLK_SHMEM_PLACE_FIRST (0x1ffULL << 45)
#define UBLK_SHMEM_PLACE_LAST (0x1ffULL << 36)
#define UBLK_SHMEM_PLACE_INDEX (0xffffULL << 20)
#define UBLK_SHMEM_PLACE_RUN 0xfffffULL
#define FIELD_GET(mask, word) (((word) & (mask)) / ((mask) & -(mask)))
#define FIELD_PREP(mask, value) ((uint64_t)(value) * ((mask) & -(mask)))
#define U64_MAX UINT64_MAX
#define XA_LIMIT(min, max) (max)
#define struct_size(p, member, nr) (sizeof(*(p)) + sizeof((p)->member[0]) * (nr))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define kfree_rcu(p, member) kfree(p)
#define lockdep_assert_held(lock) ((void)(lock))

typedef uint64_t u64;
typedef uint32_t u32;
typedef int refcount_t;
typedef int atomic_t;

struct rcu_head {
	void *next;
};
struct llist_node {
	void *next;
};
struct percpu_ref {
	int count;
};
struct completion {
	int done;
};
struct mutex {
	int held;
};
struct user_struct;
struct xarray {
	void *slot[NR_SLOTS];
};
struct ublk_shmem {
	struct mutex mutex;
	struct xarray bufs, blocks;
};

static char zero_entry; /* of an xarray: taken, but nothing is there */

struct ublk_shmem_buf;
struct ublk_shmem_run;
u32 *ublk_shmem_sort(const struct ublk_shmem_buf *buf);
int ublk_shmem_insert(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf, const u32 *order);
void ublk_shmem_erase(struct ublk_shmem *shmem, const struct ublk_shmem_buf *buf);
struct ublk_shmem_buf *ublk_shmem_find(struct ublk_shmem *shmem, unsigned long pfn,
				       const struct ublk_shmem_run **run);

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
	return xa->slot[index] == &zero_entry ? NULL : xa->slot[index];
}

/* Only a new entry may need memory. */
static void *xa_store(struct xarray *xa, unsigned long index, void *entry, gfp_t gfp)
{
	void *old = xa->slot[index];

	if (entry && !old && allocation_fails(gfp))
		return (void *)(long)-ENOMEM;
	xa->slot[index] = entry;
	return old;
}

static void *ublk_shmem_load(const struct xarray *xa, unsigned long index)
{
	return xa_load(xa, index);
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
		xa->slot[i] = entry ? entry : &zero_entry;
		*index = i;
		return 0;
	}
	return -EBUSY;
}

static const void *sort_priv;
static int (*sort_compare)(const void *, const void *, const void *);

static int compare_with_priv(const void *a, const void *b)
{
	return sort_compare(a, b, sort_priv);
}

static void sort_r(void *base, size_t nr, size_t bytes,
		   int (*compare)(const void *, const void *, const void *), void *swap,
		   const void *priv)
{
	(void)swap;
	sort_priv = priv;
	sort_compare = compare;
	qsort(base, nr, bytes, compare_with_priv);
}

#endif
