/* SPDX-License-Identifier: MIT */
/*
 * kernel.h - what of the kernel the driver's blocks need, in user space.
 *
 * No RCU (nobody reads meanwhile), and allocations that fail when told to, unless they must not.
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

#define NR_INDEXES 1024U

typedef unsigned int gfp_t;
#define GFP_KERNEL 0U
#define GFP_KERNEL_ACCOUNT 0U
#define __GFP_NOFAIL 1U

#define __counted_by(member)
#define __rcu
#define UBLK_SHMEM_BLOCK_SHIFT 3 /* small, so that runs meet and cross them */
#define UBLK_SHMEM_BLOCK_PAGES (1UL << UBLK_SHMEM_BLOCK_SHIFT)
#define UBLK_SHMEM_LEAF_SHIFT 2
#define UBLK_SHMEM_LEAF_BLOCKS (1UL << UBLK_SHMEM_LEAF_SHIFT)
#define UBLK_SHMEM_TABLE_MIN 2U
#define UBLK_SHMEM_INDEX_MAX USHRT_MAX
#define UBLK_SHMEM_PLACE_FIRST (0x1ffULL << 45)
#define UBLK_SHMEM_PLACE_LAST (0x1ffULL << 36)
#define UBLK_SHMEM_PLACE_INDEX (0xffffULL << 20)
#define UBLK_SHMEM_PLACE_RUN 0xfffffULL
#define FIELD_GET(mask, word) (((word) & (mask)) / ((mask) & -(mask)))
#define FIELD_PREP(mask, value) ((uint64_t)(value) * ((mask) & -(mask)))
#define U64_MAX UINT64_MAX
#define struct_size(p, member, nr) (sizeof(*(p)) + sizeof((p)->member[0]) * (nr))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define kfree_rcu(p, member) kfree(p)
#define kvfree_rcu(p, member) kvfree(p)
#define kfree_rcu_mightsleep(p) kfree(p)
#define smp_rmb() ((void)0)
#define rcu_assign_pointer(p, value) ((p) = (value))
#define RCU_INIT_POINTER(p, value) ((p) = (value))
#define rcu_dereference_protected(p, why) (p)
#define ublk_shmem_dereference(shmem, p) (p)
#define lockdep_assert_held(lock) ((void)(lock))
#define lockdep_assert_not_held(lock) ((void)(lock))

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
struct ida {
	bool taken[NR_INDEXES];
};
struct ublk_shmem {
	struct mutex mutex;
	struct ida indexes;
	struct ublk_shmem_table *bufs;
	struct ublk_shmem_dir *blocks;
};

struct ublk_shmem_buf;
struct ublk_shmem_run;
u32 *ublk_shmem_sort(const struct ublk_shmem_buf *buf);
int ublk_shmem_insert(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf, const u32 *order);
void ublk_shmem_erase(struct ublk_shmem *shmem, const struct ublk_shmem_buf *buf);
struct ublk_shmem_buf *ublk_shmem_find(struct ublk_shmem *shmem, unsigned long pfn,
				       const struct ublk_shmem_run **run);
struct ublk_shmem_block;
int ublk_shmem_grow(struct ublk_shmem *shmem, unsigned int index, unsigned long first_block,
		    unsigned long last_block);
void ublk_shmem_set_buf(struct ublk_shmem *shmem, unsigned int index, struct ublk_shmem_buf *buf);
int ublk_shmem_set_block(struct ublk_shmem *shmem, unsigned long number,
			 struct ublk_shmem_block *block);
struct ublk_shmem_buf *ublk_shmem_next_buf(const struct ublk_shmem *shmem, unsigned int *index);
void ublk_shmem_free_tables(struct ublk_shmem *shmem);

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

static void *kzalloc(size_t bytes, gfp_t gfp)
{
	void *p = kmalloc(bytes, gfp);

	return p ? memset(p, 0, bytes) : NULL;
}

static void *kcalloc(size_t nr, size_t bytes, gfp_t gfp)
{
	return kzalloc(nr * bytes, gfp);
}

static void *kvzalloc(size_t bytes, gfp_t gfp)
{
	return kzalloc(bytes, gfp);
}

static void kfree(void *p)
{
	nr_allocated -= p != NULL;
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

static unsigned int roundup_pow_of_two(unsigned int n)
{
	unsigned int power = 1;

	while (power < n)
		power *= 2;
	return power;
}

/* The first byte that is another, or NULL. */
static const void *memchr_inv(const void *p, int c, size_t bytes)
{
	const unsigned char *byte = p;

	for (size_t i = 0; i < bytes; i++)
		if (byte[i] != c)
			return &byte[i];
	return NULL;
}

static int ida_alloc_max(struct ida *ida, unsigned int most, gfp_t gfp)
{
	if (allocation_fails(gfp))
		return -ENOMEM;
	for (unsigned int i = 0; i < NR_INDEXES && i <= most; i++) {
		if (ida->taken[i])
			continue;
		ida->taken[i] = true;
		return (int)i;
	}
	return -ENOSPC;
}

static void ida_free(struct ida *ida, unsigned int index)
{
	assert(ida->taken[index]);
	ida->taken[index] = false;
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
