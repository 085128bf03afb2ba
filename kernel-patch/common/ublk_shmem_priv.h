/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How registered buffers are kept: shared by the ublk_shmem*.c and by no one
 * else.
 */
#ifndef UBLK_SHMEM_PRIV_H
#define UBLK_SHMEM_PRIV_H

#include <linux/completion.h>
#include <linux/percpu-refcount.h>
#include <linux/rcupdate.h>
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
	bool			lost;		/* foreign: its memory is gone */
	bool			dying;		/* matches nothing, from now on */
	bool			released;	/* its pages have gone */
	bool			unregistered;	/* by command, or with the device */
	unsigned long		nr_pages;
	struct user_struct	*charged;	/* unprivileged devices only */
	struct ublk_shmem_foreign *foreign;	/* NULL: the server's own memory */
	/* in the buffer's order */
	struct ublk_shmem_run	runs[] __counted_by(nr_runs);
};

/* Under RCU. */
static inline bool ublk_shmem_hold_live(struct ublk_shmem_buf *buf)
{
	return !READ_ONCE(buf->lost) && percpu_ref_tryget_live_rcu(&buf->ref);
}

/*
 * Where lookups find buffers by index, and blocks of physical pages by number:
 * in leaves, as only parts of the physical memory are registered. Table and
 * directory are replaced for readers when they grow, entries change in place.
 */
struct ublk_shmem_table {
	struct rcu_head		rcu;
	unsigned int		nr;
	struct ublk_shmem_buf __rcu *bufs[] __counted_by(nr);
};

#define UBLK_SHMEM_LEAF_SHIFT	9
#define UBLK_SHMEM_LEAF_BLOCKS	BIT(UBLK_SHMEM_LEAF_SHIFT)

struct ublk_shmem_leaf {
	struct ublk_shmem_block __rcu *blocks[UBLK_SHMEM_LEAF_BLOCKS];
};

struct ublk_shmem_dir {
	struct rcu_head		rcu;
	unsigned long		first;		/* leaf's number */
	unsigned long		nr;
	struct ublk_shmem_leaf __rcu *leaves[] __counted_by(nr);
};

/* Under RCU or the mutex. */
#define ublk_shmem_dereference(shmem, p) \
	rcu_dereference_check(p, lockdep_is_held(&(shmem)->mutex))

static inline struct ublk_shmem_buf *
ublk_shmem_get_buf(const struct ublk_shmem *shmem, unsigned int index)
{
	const struct ublk_shmem_table *table =
		ublk_shmem_dereference(shmem, shmem->bufs);

	if (!table || index >= table->nr)
		return NULL;
	return ublk_shmem_dereference(shmem, table->bufs[index]);
}

static inline struct ublk_shmem_block *
ublk_shmem_get_block(const struct ublk_shmem *shmem, unsigned long number)
{
	const struct ublk_shmem_dir *dir =
		ublk_shmem_dereference(shmem, shmem->blocks);
	const struct ublk_shmem_leaf *leaf;
	unsigned long i = number >> UBLK_SHMEM_LEAF_SHIFT;

	/* smaller than the first one is also too large */
	if (!dir || i - dir->first >= dir->nr)
		return NULL;
	leaf = ublk_shmem_dereference(shmem, dir->leaves[i - dir->first]);
	if (!leaf)
		return NULL;
	return ublk_shmem_dereference(shmem,
				      leaf->blocks[number % UBLK_SHMEM_LEAF_BLOCKS]);
}

/*
 * Make room for a buffer of that index, and for blocks of these numbers; or
 * -ENOMEM. Under the mutex, as all that change something.
 */
int ublk_shmem_grow(struct ublk_shmem *shmem, unsigned int index,
		    unsigned long first_block, unsigned long last_block);

/* Need no memory. A buffer of NULL: there is none any more. */
void ublk_shmem_set_buf(struct ublk_shmem *shmem, unsigned int index,
			struct ublk_shmem_buf *buf);

/* Needs memory, if at all, where there was no block. */
int ublk_shmem_set_block(struct ublk_shmem *shmem, unsigned long number,
			 struct ublk_shmem_block *block);

/* The first buffer whose index is @index or more, which is set to it, or NULL. */
struct ublk_shmem_buf *ublk_shmem_next_buf(const struct ublk_shmem *shmem,
					   unsigned int *index);

/* Nobody looks up any more, and nothing is there to be found. */
void ublk_shmem_free_tables(struct ublk_shmem *shmem);

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

/* A buffer of these pages, which stay the caller's, or NULL. */
struct ublk_shmem_buf *ublk_shmem_new_buf(struct ublk_shmem *shmem,
					  struct page **pages,
					  unsigned long nr_pages);

/* Under the mutex: the buffer matches nothing any more, and goes when it can. */
void ublk_shmem_kill(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf);

/*
 * Make the buffer found; returns its index. On failure it and its pages are
 * gone.
 */
int ublk_shmem_publish(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf);

void ublk_shmem_put_buf(struct ublk_shmem_buf *buf);

/* Of ublk_shmem_foreign.c. Under the mutex, when the buffer is found: */
void ublk_shmem_foreign_published(struct ublk_shmem *shmem,
				  struct ublk_shmem_buf *buf);
/* No request refers to it any more. */
void ublk_shmem_foreign_release(struct ublk_shmem_buf *buf);
void ublk_shmem_foreign_free(struct ublk_shmem_foreign *foreign);
u32 ublk_shmem_foreign_pid(const struct ublk_shmem_foreign *foreign);
void ublk_shmem_lost(struct work_struct *work);

/* Of ublk_shmem_hints.c: the request did not match. In the server's task. */
void ublk_shmem_hint(struct ublk_shmem *shmem, const struct request *req);
void ublk_shmem_free_hints(struct ublk_shmem *shmem);

/* Of ublk_shmem_issuers.c: a guess, as in the initial namespace, or 0. */
u32 ublk_shmem_issuer_of(const struct request *req);
/* A device that may gather hints, from when to when; and that it does now. */
void ublk_shmem_add_watcher(void);
void ublk_shmem_remove_watcher(void);
void ublk_shmem_watch(unsigned long until);

#endif
