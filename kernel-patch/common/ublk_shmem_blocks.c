// SPDX-License-Identifier: GPL-2.0
/*
 * Which registered run is a physical page in?
 *
 * Each block of 512 physical pages has the places of the runs in it, sorted. A
 * place is one number: where the run begins and ends in the block, and which run
 * it is. So a lookup loads the block, does a short search which follows no
 * pointers, and loads the buffer. That takes less memory than a tree with an
 * entry for each run, and changing a buffer allocates per block and not per run.
 *
 * Blocks are replaced for readers under RCU; writers hold the mutex. Buffers
 * become visible by their index, as a whole, once all their places are there.
 * Nothing depends on a reader's place being current: what it names is found
 * out to have the page, or not.
 */
#include <linux/bitfield.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include "ublk_shmem_priv.h"

/* pages of physical memory whose runs are kept together: at least a huge page */
#define UBLK_SHMEM_BLOCK_SHIFT	9
#define UBLK_SHMEM_BLOCK_PAGES	BIT(UBLK_SHMEM_BLOCK_SHIFT)

/*
 * A place. Where it begins comes first, so that places sort as numbers. A
 * buffer of 4 GiB has no more than 2^20 runs.
 */
#define UBLK_SHMEM_PLACE_FIRST	GENMASK_ULL(53, 45)
#define UBLK_SHMEM_PLACE_LAST	GENMASK_ULL(44, 36)
#define UBLK_SHMEM_PLACE_INDEX	GENMASK_ULL(35, 20)	/* of the buffer */
#define UBLK_SHMEM_PLACE_RUN	GENMASK_ULL(19, 0)	/* its number there */

struct ublk_shmem_block {
	struct rcu_head		rcu;
	unsigned int		nr;
	u64			places[] __counted_by(nr);
};

static unsigned int ublk_shmem_first(u64 place)
{
	return FIELD_GET(UBLK_SHMEM_PLACE_FIRST, place);
}

static unsigned int ublk_shmem_last(u64 place)
{
	return FIELD_GET(UBLK_SHMEM_PLACE_LAST, place);
}

/*
 * The place that the block's page number @page is in, or NULL.
 *
 * As each run has at least a page, those that begin at @page or before are not
 * more than there are pages up to it, and those behind not more than there are
 * pages left. When a block is almost full of short runs, that leaves almost
 * nothing to search.
 */
static inline const u64 *
ublk_shmem_search(const struct ublk_shmem_block *block, unsigned int page)
{
	/* the greatest that begins there */
	const u64 most = FIELD_PREP(UBLK_SHMEM_PLACE_FIRST, page) |
		(UBLK_SHMEM_PLACE_LAST | UBLK_SHMEM_PLACE_INDEX |
		 UBLK_SHMEM_PLACE_RUN);
	unsigned int high = min(block->nr, page + 1);
	unsigned int left = UBLK_SHMEM_BLOCK_PAGES - page;
	unsigned int low = block->nr > left ? block->nr - left : 0;

	while (high - low > 1) {
		unsigned int mid = (low + high) / 2;

		if (block->places[mid] > most)
			high = mid;
		else
			low = mid;
	}
	if (page < ublk_shmem_first(block->places[low]) ||
	    page > ublk_shmem_last(block->places[low]))
		return NULL;
	return &block->places[low];
}

struct ublk_shmem_buf *ublk_shmem_find(struct ublk_shmem *shmem,
				       unsigned long pfn,
				       const struct ublk_shmem_run **run)
{
	const struct ublk_shmem_block *block;
	struct ublk_shmem_buf *buf;
	const u64 *place;
	unsigned int i;

	block = ublk_shmem_get_block(shmem, pfn >> UBLK_SHMEM_BLOCK_SHIFT);
	if (!block)
		return NULL;
	place = ublk_shmem_search(block, pfn % UBLK_SHMEM_BLOCK_PAGES);
	if (!place)
		return NULL;
	/*
	 * Not from a table that is older than the place: it may name who had
	 * the index before. Publishing the block is the other half.
	 */
	smp_rmb();
	buf = ublk_shmem_get_buf(shmem,
				 FIELD_GET(UBLK_SHMEM_PLACE_INDEX, *place));
	i = FIELD_GET(UBLK_SHMEM_PLACE_RUN, *place);
	if (!buf || i >= buf->nr_runs || !ublk_shmem_in_run(&buf->runs[i], pfn))
		return NULL;
	*run = &buf->runs[i];
	return buf;
}

static unsigned long ublk_shmem_first_block(const struct ublk_shmem_run *run)
{
	return run->pfn >> UBLK_SHMEM_BLOCK_SHIFT;
}

static unsigned long ublk_shmem_last_block(const struct ublk_shmem_run *run)
{
	return (run->pfn + run->nr_pages - 1) >> UBLK_SHMEM_BLOCK_SHIFT;
}

/* Of the buffer's run number @i, in block @index, which it may only cross. */
static u64 ublk_shmem_place(const struct ublk_shmem_buf *buf, u32 i,
			    unsigned long index)
{
	const struct ublk_shmem_run *run = &buf->runs[i];
	unsigned long begin = index << UBLK_SHMEM_BLOCK_SHIFT;
	unsigned long end = begin + UBLK_SHMEM_BLOCK_PAGES;
	unsigned long first = max(run->pfn, begin);
	unsigned long last = min(run->pfn + run->nr_pages, end) - 1;

	return FIELD_PREP(UBLK_SHMEM_PLACE_FIRST, first - begin) |
		FIELD_PREP(UBLK_SHMEM_PLACE_LAST, last - begin) |
		FIELD_PREP(UBLK_SHMEM_PLACE_INDEX, buf->index) |
		FIELD_PREP(UBLK_SHMEM_PLACE_RUN, i);
}

static struct ublk_shmem_block *ublk_shmem_alloc_block(unsigned int nr,
						       gfp_t gfp)
{
	struct ublk_shmem_block *block;

	block = kmalloc(struct_size(block, places, nr),
			GFP_KERNEL_ACCOUNT | gfp);
	if (block)
		block->nr = nr;
	return block;
}

/* Replace a block by one without @buf's places. */
static void ublk_shmem_erase_from_block(struct ublk_shmem *shmem,
					const struct ublk_shmem_buf *buf,
					struct ublk_shmem_block *block,
					unsigned long index)
{
	struct ublk_shmem_block *rest = NULL;
	unsigned int i, nr = 0;

	for (i = 0; i < block->nr; i++)
		nr += FIELD_GET(UBLK_SHMEM_PLACE_INDEX, block->places[i]) !=
			buf->index;
	if (nr) {
		/* @buf is about to be freed: there is no way back */
		rest = ublk_shmem_alloc_block(nr, __GFP_NOFAIL);
		for (i = 0, nr = 0; i < block->nr; i++)
			if (FIELD_GET(UBLK_SHMEM_PLACE_INDEX,
				      block->places[i]) != buf->index)
				rest->places[nr++] = block->places[i];
	}
	/* needs no memory, as there is one */
	ublk_shmem_set_block(shmem, index, rest);
	kfree_rcu(block, rcu);
}

void ublk_shmem_erase(struct ublk_shmem *shmem,
		      const struct ublk_shmem_buf *buf)
{
	unsigned int i;

	lockdep_assert_held(&shmem->mutex);
	for (i = 0; i < buf->nr_runs; i++) {
		const struct ublk_shmem_run *run = &buf->runs[i];
		unsigned long index;

		for (index = ublk_shmem_first_block(run);
		     index <= ublk_shmem_last_block(run); index++) {
			struct ublk_shmem_block *block;
			u64 place = ublk_shmem_place(buf, i, index);
			const u64 *found = NULL;

			block = ublk_shmem_get_block(shmem, index);
			if (block)
				found = ublk_shmem_search(block,
							  ublk_shmem_first(place));
			/* another run may have taken this one along */
			if (found && *found == place)
				ublk_shmem_erase_from_block(shmem, buf, block,
							    index);
		}
		cond_resched();
	}
}

/* Replace a block by one with the runs @order[0] to @order[nr - 1] as well. */
static int ublk_shmem_insert_in_block(struct ublk_shmem *shmem,
				      const struct ublk_shmem_buf *buf,
				      unsigned long index, const u32 *order,
				      unsigned int nr)
{
	struct ublk_shmem_block *old = ublk_shmem_get_block(shmem, index);
	unsigned int nr_old = old ? old->nr : 0;
	unsigned int i, o = 0, n = 0;
	struct ublk_shmem_block *new;
	int ret = 0;

	/* more would overlap, and need no memory to find that out */
	if (nr_old + nr > UBLK_SHMEM_BLOCK_PAGES)
		return -EEXIST;
	new = ublk_shmem_alloc_block(nr_old + nr, 0);
	if (!new)
		return -ENOMEM;
	for (i = 0; i < new->nr && !ret; i++) {
		u64 place = n < nr ? ublk_shmem_place(buf, order[n], index) :
			U64_MAX;

		if (o < nr_old && old->places[o] < place)
			place = old->places[o++];
		else
			n++;
		new->places[i] = place;
		if (i && ublk_shmem_first(place) <=
		    ublk_shmem_last(new->places[i - 1]))
			ret = -EEXIST;
	}
	if (!ret)
		ret = ublk_shmem_set_block(shmem, index, new);
	if (ret)
		kfree(new);
	else if (old)
		kfree_rcu(old, rcu);
	return ret;
}

static int ublk_shmem_insert_runs(struct ublk_shmem *shmem,
				  const struct ublk_shmem_buf *buf,
				  const u32 *order)
{
	unsigned long index = ublk_shmem_first_block(&buf->runs[order[0]]);
	unsigned int first = 0, end;
	int ret;

	while (first < buf->nr_runs) {
		for (end = first; end < buf->nr_runs; end++)
			if (ublk_shmem_first_block(&buf->runs[order[end]]) > index)
				break;
		ret = ublk_shmem_insert_in_block(shmem, buf, index,
						 order + first, end - first);
		if (ret)
			return ret;
		/* the last one may go on in the next block */
		first = end;
		if (ublk_shmem_last_block(&buf->runs[order[end - 1]]) > index) {
			first = end - 1;
			index++;
		} else if (first < buf->nr_runs) {
			index = ublk_shmem_first_block(&buf->runs[order[first]]);
		}
		cond_resched();
	}
	return 0;
}

int ublk_shmem_insert(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf,
		      const u32 *order)
{
	unsigned long first = ublk_shmem_first_block(&buf->runs[order[0]]);
	unsigned long last =
		ublk_shmem_last_block(&buf->runs[order[buf->nr_runs - 1]]);
	int ret;

	lockdep_assert_held(&shmem->mutex);
	/* only the index is taken: nothing is there to be found */
	ret = ida_alloc_max(&shmem->indexes, UBLK_SHMEM_INDEX_MAX, GFP_KERNEL);
	if (ret < 0)
		return ret;
	buf->index = ret;
	ret = ublk_shmem_grow(shmem, buf->index, first, last);
	if (!ret) {
		ret = ublk_shmem_insert_runs(shmem, buf, order);
		if (ret)
			ublk_shmem_erase(shmem, buf);
	}
	if (ret) {
		ida_free(&shmem->indexes, buf->index);
		return ret;
	}
	/* from here on requests can match */
	ublk_shmem_set_buf(shmem, buf->index, buf);
	return 0;
}

static int ublk_shmem_compare(const void *a, const void *b, const void *priv)
{
	const struct ublk_shmem_run *runs = priv;
	unsigned long x = runs[*(const u32 *)a].pfn;
	unsigned long y = runs[*(const u32 *)b].pfn;

	/* there may be a million of them */
	cond_resched();
	return x < y ? -1 : x > y;
}

u32 *ublk_shmem_sort(const struct ublk_shmem_buf *buf)
{
	u32 *order = kvmalloc_array(buf->nr_runs, sizeof(*order),
				    GFP_KERNEL_ACCOUNT);
	u32 i;

	/* a million runs take long, and nobody else waits for it */
	lockdep_assert_not_held(&buf->shmem->mutex);
	if (!order)
		return NULL;
	for (i = 0; i < buf->nr_runs; i++)
		order[i] = i;
	sort_r(order, buf->nr_runs, sizeof(*order), ublk_shmem_compare, NULL,
	       buf->runs);
	return order;
}
