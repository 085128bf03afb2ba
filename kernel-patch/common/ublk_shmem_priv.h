/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How registered buffers are kept: shared by the ublk_shmem*.c and by no one
 * else.
 */
#ifndef UBLK_SHMEM_PRIV_H
#define UBLK_SHMEM_PRIV_H

#include <linux/completion.h>
#include <linux/percpu-refcount.h>
#include "ublk_shmem.h"

/* an index has 16 bits in the io descriptor */
#define UBLK_SHMEM_INDEX_MAX	USHRT_MAX

/* pages of physical memory whose runs are kept together: at least a huge page */
#define UBLK_SHMEM_BLOCK_SHIFT	9

/*
 * A registered buffer is a number of runs: pages that follow each other both
 * in the buffer and physically.
 */
struct ublk_shmem_run {
	struct ublk_shmem_buf	*buf;
	unsigned long		pfn;
	unsigned int		first_page;	/* index in the buffer */
	unsigned int		nr_pages;
};

/*
 * Lookups run under RCU and never wait. A request that matched holds a
 * reference until it is completed or requeued, and the pages stay pinned
 * until the last reference is gone. The reference is dead until the whole
 * buffer is found, so a registration which fails half way was never
 * visible.
 */
struct ublk_shmem_buf {
	struct percpu_ref	ref;
	struct completion	drained;
	unsigned int		index;
	unsigned int		nr_runs;
	bool			read_only;
	bool			dying;		/* being unregistered */
	bool			unregistered;	/* its index is free */
	unsigned int		nr_waiting;	/* unregistrations */
	unsigned long		nr_pages;
	struct user_struct	*charged;	/* unprivileged devices only */
	struct ublk_shmem_run	runs[] __counted_by(nr_runs);
};

/*
 * All runs with pages in one block, of whatever buffers, in physical order. It
 * is replaced and not changed, so that lookups need no lock; one takes as many
 * steps as the block's number of pages has bits, however many runs there are
 * elsewhere.
 */
struct ublk_shmem_block {
	struct rcu_head		rcu;
	unsigned int		nr_runs;
	struct ublk_shmem_run	*runs[] __counted_by(nr_runs);
};

/* One reference for each segment of a request's list. */
struct ublk_shmem_held {
	unsigned int		nr;
	struct ublk_shmem_buf	*bufs[];
};

static inline bool ublk_shmem_in_run(const struct ublk_shmem_run *run,
				     unsigned long pfn)
{
	return pfn >= run->pfn && pfn - run->pfn < run->nr_pages;
}

/* Both under the mutex. Insert returns the index. */
int ublk_shmem_insert(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf);
void ublk_shmem_erase(struct ublk_shmem *shmem,
		      const struct ublk_shmem_buf *buf);

/* Under RCU. */
struct ublk_shmem_run *ublk_shmem_find(struct ublk_shmem *shmem,
				       unsigned long pfn);

#endif
