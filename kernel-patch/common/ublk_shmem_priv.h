/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How registered buffers are kept: shared by the ublk_shmem*.c and by no one
 * else.
 */
#ifndef UBLK_SHMEM_PRIV_H
#define UBLK_SHMEM_PRIV_H

#include <linux/completion.h>
#include <linux/percpu-refcount.h>
#include <linux/refcount.h>
#include <linux/sizes.h>
#include "ublk_shmem.h"

/* an index has 16 bits in the io descriptor */
#define UBLK_SHMEM_INDEX_MAX	USHRT_MAX

/* Linux 7.x has it in its driver, and not in the UAPI header */
#ifndef UBLK_SHMEM_BUF_SIZE_MAX
#define UBLK_SHMEM_BUF_SIZE_MAX	SZ_4G
#endif

/* Pages that follow each other both in the buffer and physically. */
struct ublk_shmem_run {
	unsigned long		pfn;
	unsigned int		first_page;	/* index in the buffer */
	unsigned int		nr_pages;
};

/*
 * Lookups run under RCU and never wait. A request that matched holds a
 * reference until it is completed or requeued, and the pages stay pinned
 * until the last reference is gone.
 */
struct ublk_shmem_buf {
	struct percpu_ref	ref;
	struct ublk_shmem	*shmem;
	struct llist_node	drained;
	struct completion	gone;		/* neither found nor pinned */
	refcount_t		users;		/* of this structure */
	atomic_t		nr_told;	/* that it is unregistered */
	unsigned int		index;
	unsigned int		nr_runs;
	bool			read_only;
	bool			dying;		/* being unregistered */
	unsigned long		nr_pages;
	struct user_struct	*charged;	/* unprivileged devices only */
	/* in the buffer's order */
	struct ublk_shmem_run	runs[] __counted_by(nr_runs);
};

static inline bool ublk_shmem_in_run(const struct ublk_shmem_run *run,
				     unsigned long pfn)
{
	return pfn >= run->pfn && pfn - run->pfn < run->nr_pages;
}

/*
 * The numbers of a buffer's runs in physical order, to be freed with kvfree(),
 * or NULL.
 */
u32 *ublk_shmem_sort(const struct ublk_shmem_buf *buf);

/*
 * Make the buffer found, @order being what ublk_shmem_sort() returned, and not
 * found any more. Both under the mutex. On failure it has never been found.
 */
int ublk_shmem_insert(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf,
		      const u32 *order);
void ublk_shmem_erase(struct ublk_shmem *shmem,
		      const struct ublk_shmem_buf *buf);

/*
 * The buffer that a physical page is in, and which of its runs, or NULL. Under
 * RCU; the buffer may be dying.
 */
struct ublk_shmem_buf *ublk_shmem_find(struct ublk_shmem *shmem,
				       unsigned long pfn,
				       const struct ublk_shmem_run **run);

#endif
