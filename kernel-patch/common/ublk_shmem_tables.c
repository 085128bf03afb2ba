// SPDX-License-Identifier: GPL-2.0
/*
 * Tables in which lookups find buffers and blocks of physical pages.
 *
 * Each request is looked up, and each lookup loads a block and a buffer. Loading
 * them from xarrays was most of what a lookup cost: three times the instructions
 * of these, whose depth is fixed. An index is the buffer's place in one table. A
 * block's number is split: the directory has a leaf of 4 KiB for each GiB of
 * physical memory that something in is registered, and reaches from the first of
 * them to the last.
 */
#include <linux/log2.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "ublk_shmem_priv.h"

#define UBLK_SHMEM_TABLE_MIN	16U

static int ublk_shmem_grow_table(struct ublk_shmem *shmem, unsigned int index)
{
	struct ublk_shmem_table *old = ublk_shmem_dereference(shmem, shmem->bufs);
	unsigned int i, nr = max(roundup_pow_of_two(index + 1), UBLK_SHMEM_TABLE_MIN);
	struct ublk_shmem_table *new;

	if (old && index < old->nr)
		return 0;
	new = kvzalloc(struct_size(new, bufs, nr), GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;
	new->nr = nr;
	for (i = 0; old && i < old->nr; i++)
		RCU_INIT_POINTER(new->bufs[i], ublk_shmem_get_buf(shmem, i));
	rcu_assign_pointer(shmem->bufs, new);
	if (old)
		kvfree_rcu(old, rcu);
	return 0;
}

static int ublk_shmem_grow_dir(struct ublk_shmem *shmem, unsigned long first,
			       unsigned long last)
{
	struct ublk_shmem_dir *old = ublk_shmem_dereference(shmem, shmem->blocks);
	struct ublk_shmem_dir *new;
	unsigned long i, nr;

	if (old) {
		first = min(first, old->first);
		last = max(last, old->first + old->nr - 1);
	}
	nr = last - first + 1;
	if (old && nr == old->nr)
		return 0;
	new = kvzalloc(struct_size(new, leaves, nr), GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;
	new->first = first;
	new->nr = nr;
	for (i = 0; old && i < old->nr; i++)
		RCU_INIT_POINTER(new->leaves[old->first - first + i],
				 ublk_shmem_dereference(shmem, old->leaves[i]));
	rcu_assign_pointer(shmem->blocks, new);
	if (old)
		kvfree_rcu(old, rcu);
	return 0;
}

int ublk_shmem_grow(struct ublk_shmem *shmem, unsigned int index,
		    unsigned long first_block, unsigned long last_block)
{
	lockdep_assert_held(&shmem->mutex);
	return ublk_shmem_grow_table(shmem, index) ?:
		ublk_shmem_grow_dir(shmem, first_block >> UBLK_SHMEM_LEAF_SHIFT,
				    last_block >> UBLK_SHMEM_LEAF_SHIFT);
}

void ublk_shmem_set_buf(struct ublk_shmem *shmem, unsigned int index,
			struct ublk_shmem_buf *buf)
{
	struct ublk_shmem_table *table = ublk_shmem_dereference(shmem, shmem->bufs);

	lockdep_assert_held(&shmem->mutex);
	rcu_assign_pointer(table->bufs[index], buf);
}

int ublk_shmem_set_block(struct ublk_shmem *shmem, unsigned long number,
			 struct ublk_shmem_block *block)
{
	struct ublk_shmem_dir *dir = ublk_shmem_dereference(shmem, shmem->blocks);
	unsigned long i = (number >> UBLK_SHMEM_LEAF_SHIFT) - dir->first;
	struct ublk_shmem_leaf *leaf = ublk_shmem_dereference(shmem, dir->leaves[i]);

	lockdep_assert_held(&shmem->mutex);
	if (!leaf) {
		leaf = kcalloc(UBLK_SHMEM_LEAF_BLOCKS, sizeof(leaf->blocks[0]),
			       GFP_KERNEL_ACCOUNT);
		if (!leaf)
			return -ENOMEM;
		rcu_assign_pointer(dir->leaves[i], leaf);
	}
	rcu_assign_pointer(leaf->blocks[number % UBLK_SHMEM_LEAF_BLOCKS], block);
	if (!block && !memchr_inv(leaf, 0, sizeof(*leaf))) {
		RCU_INIT_POINTER(dir->leaves[i], NULL);
		kfree_rcu_mightsleep(leaf);
	}
	return 0;
}

struct ublk_shmem_buf *ublk_shmem_next_buf(const struct ublk_shmem *shmem,
					   unsigned int *index)
{
	const struct ublk_shmem_table *table =
		ublk_shmem_dereference(shmem, shmem->bufs);
	struct ublk_shmem_buf *buf;

	lockdep_assert_held(&shmem->mutex);
	for (; table && *index < table->nr; (*index)++) {
		buf = ublk_shmem_get_buf(shmem, *index);
		if (buf)
			return buf;
	}
	return NULL;
}

void ublk_shmem_free_tables(struct ublk_shmem *shmem)
{
	kvfree(rcu_dereference_protected(shmem->bufs, true));
	kvfree(rcu_dereference_protected(shmem->blocks, true));
}
