// SPDX-License-Identifier: GPL-2.0
/*
 * Which registered run is a physical page in?
 *
 * An xarray has the runs of each block of 512 physical pages, sorted, so that
 * a lookup is an xa_load() and a short search. That takes less memory than a
 * tree with an entry for each run, and changing a buffer allocates per block
 * and not per run. Blocks are replaced for readers under RCU; writers hold the
 * mutex.
 */
#include <linux/sort.h>
#include "ublk_shmem_priv.h"

/* Under RCU, or the mutex. */
static struct ublk_shmem_run *
ublk_shmem_search(const struct ublk_shmem_block *block, unsigned long pfn)
{
	unsigned int low = 0, high = block ? block->nr_runs : 0;

	while (low < high) {
		unsigned int mid = low + (high - low) / 2;
		struct ublk_shmem_run *run = block->runs[mid];

		if (ublk_shmem_in_run(run, pfn))
			return run;
		if (pfn < run->pfn)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

struct ublk_shmem_run *ublk_shmem_find(struct ublk_shmem *shmem,
				       unsigned long pfn)
{
	return ublk_shmem_search(xa_load(&shmem->blocks,
					 pfn >> UBLK_SHMEM_BLOCK_SHIFT), pfn);
}

static unsigned long ublk_shmem_first_block(const struct ublk_shmem_run *run)
{
	return run->pfn >> UBLK_SHMEM_BLOCK_SHIFT;
}

static unsigned long ublk_shmem_last_block(const struct ublk_shmem_run *run)
{
	return (run->pfn + run->nr_pages - 1) >> UBLK_SHMEM_BLOCK_SHIFT;
}

static struct ublk_shmem_block *ublk_shmem_alloc_block(unsigned int nr_runs,
						       gfp_t gfp)
{
	struct ublk_shmem_block *block;

	block = kmalloc(struct_size(block, runs, nr_runs),
			GFP_KERNEL_ACCOUNT | gfp);
	if (block)
		block->nr_runs = nr_runs;
	return block;
}

/* Replace a block by one without @buf's runs. */
static void ublk_shmem_erase_from_block(struct ublk_shmem *shmem,
					const struct ublk_shmem_buf *buf,
					struct ublk_shmem_block *block,
					unsigned long index)
{
	struct ublk_shmem_block *rest = NULL;
	unsigned int i, nr = 0;

	for (i = 0; i < block->nr_runs; i++)
		nr += block->runs[i]->buf != buf;
	if (nr) {
		/* @buf is about to be freed: there is no way back */
		rest = ublk_shmem_alloc_block(nr, __GFP_NOFAIL);
		for (i = 0, nr = 0; i < block->nr_runs; i++)
			if (block->runs[i]->buf != buf)
				rest->runs[nr++] = block->runs[i];
	}
	/* needs no memory, as there is an entry */
	xa_store(&shmem->blocks, index, rest, GFP_KERNEL);
	kfree_rcu(block, rcu);
}

/* No new request can match afterwards. */
void ublk_shmem_erase(struct ublk_shmem *shmem,
		      const struct ublk_shmem_buf *buf)
{
	unsigned int i;

	for (i = 0; i < buf->nr_runs; i++) {
		const struct ublk_shmem_run *run = &buf->runs[i];
		unsigned long index;

		for (index = ublk_shmem_first_block(run);
		     index <= ublk_shmem_last_block(run); index++) {
			struct ublk_shmem_block *block;
			unsigned long pfn = max(run->pfn,
						index << UBLK_SHMEM_BLOCK_SHIFT);

			block = xa_load(&shmem->blocks, index);
			/* another run may have taken this one along */
			if (ublk_shmem_search(block, pfn) == run)
				ublk_shmem_erase_from_block(shmem, buf, block,
							    index);
		}
		cond_resched();
	}
}

static int ublk_shmem_compare(const void *a, const void *b)
{
	const struct ublk_shmem_run *x = *(const struct ublk_shmem_run **)a;
	const struct ublk_shmem_run *y = *(const struct ublk_shmem_run **)b;

	/* there may be a million of them */
	cond_resched();
	return x->pfn < y->pfn ? -1 : x->pfn > y->pfn;
}

static bool ublk_shmem_overlap(const struct ublk_shmem_block *block)
{
	unsigned int i;

	for (i = 1; i < block->nr_runs; i++)
		if (ublk_shmem_in_run(block->runs[i - 1], block->runs[i]->pfn))
			return true;
	return false;
}

/* Replace a block by one with @nr more runs, which are sorted. */
static int ublk_shmem_insert_in_block(struct ublk_shmem *shmem,
				      unsigned long index,
				      struct ublk_shmem_run **runs,
				      unsigned int nr)
{
	struct ublk_shmem_block *old = xa_load(&shmem->blocks, index);
	unsigned int nr_old = old ? old->nr_runs : 0;
	struct ublk_shmem_block *new;
	unsigned int i, o = 0, n = 0;
	int ret;

	/* more would overlap, and need no memory to find that out */
	if (nr_old + nr > 1U << UBLK_SHMEM_BLOCK_SHIFT)
		return -EEXIST;
	new = ublk_shmem_alloc_block(nr_old + nr, 0);
	if (!new)
		return -ENOMEM;
	for (i = 0; i < new->nr_runs; i++)
		if (n == nr || (o < nr_old && old->runs[o]->pfn < runs[n]->pfn))
			new->runs[i] = old->runs[o++];
		else
			new->runs[i] = runs[n++];
	ret = ublk_shmem_overlap(new) ? -EEXIST :
		xa_err(xa_store(&shmem->blocks, index, new, GFP_KERNEL));
	if (ret)
		kfree(new);
	else if (old)
		kfree_rcu(old, rcu);
	return ret;
}

static int ublk_shmem_insert_runs(struct ublk_shmem *shmem,
				  struct ublk_shmem_run **sorted,
				  unsigned int nr_runs)
{
	unsigned long index = ublk_shmem_first_block(sorted[0]);
	unsigned int first = 0, end;
	int ret;

	while (first < nr_runs) {
		for (end = first; end < nr_runs; end++)
			if (ublk_shmem_first_block(sorted[end]) > index)
				break;
		ret = ublk_shmem_insert_in_block(shmem, index, sorted + first,
						 end - first);
		if (ret)
			return ret;
		/* the last one may go on in the next block */
		first = end;
		if (ublk_shmem_last_block(sorted[end - 1]) > index) {
			first = end - 1;
			index++;
		} else if (first < nr_runs) {
			index = ublk_shmem_first_block(sorted[first]);
		}
		cond_resched();
	}
	return 0;
}

/* Returns the index. */
int ublk_shmem_insert(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf)
{
	struct ublk_shmem_run **sorted;
	unsigned int i;
	int ret;

	sorted = kvmalloc_array(buf->nr_runs, sizeof(*sorted),
				GFP_KERNEL_ACCOUNT);
	if (!sorted)
		return -ENOMEM;
	for (i = 0; i < buf->nr_runs; i++)
		sorted[i] = &buf->runs[i];
	sort(sorted, buf->nr_runs, sizeof(*sorted), ublk_shmem_compare, NULL);

	ret = xa_alloc(&shmem->bufs, &buf->index, buf,
		       XA_LIMIT(0, UBLK_SHMEM_INDEX_MAX), GFP_KERNEL);
	if (ret) {
		ret = ret == -EBUSY ? -ENOSPC : ret;
		goto out;
	}
	ret = ublk_shmem_insert_runs(shmem, sorted, buf->nr_runs);
	if (ret) {
		ublk_shmem_erase(shmem, buf);
		xa_erase(&shmem->bufs, buf->index);
		goto out;
	}
	/* from here on requests can match */
	percpu_ref_reinit(&buf->ref);
	ret = buf->index;
out:
	kvfree(sorted);
	return ret;
}
