// SPDX-License-Identifier: GPL-2.0
/*
 * Hints: where were the requests that did not match?
 *
 * While a server asks, each such request leaves its address, a few per device:
 * in a small table, where a place that is wanted by another goes to the more
 * frequent one. What is told is a guess: memory may have been moved since, and a
 * request may have been queued by another process than the one that issued it.
 * So nothing depends on it being right, and nobody waits for the table's lock.
 * While nobody asks, it costs a branch.
 */
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "ublk_shmem_priv.h"

#define UBLK_SHMEM_HINT_WAYS	4U
#define UBLK_SHMEM_HINT_SETS	BIT(UBLK_SHMEM_HINT_SHIFT)
#define UBLK_SHMEM_HINT_SHIFT	7
#define UBLK_SHMEM_NR_HINTS	(UBLK_SHMEM_HINT_SETS * UBLK_SHMEM_HINT_WAYS)

struct ublk_shmem_hints {
	spinlock_t		lock;		/* of the hints */
	unsigned long		until;		/* jiffies */
	struct ublkzc_shmem_hint hints[UBLK_SHMEM_NR_HINTS];
};

static bool ublk_shmem_same_hint(const struct ublkzc_shmem_hint *a,
				 const struct ublkzc_shmem_hint *b)
{
	return a->addr == b->addr && a->len == b->len && a->pid == b->pid &&
		a->flags == b->flags;
}

/* Others in the set lose a little each time, so that what is over makes room. */
static void ublk_shmem_add_hint(struct ublk_shmem_hints *hints,
				const struct ublkzc_shmem_hint *hint)
{
	u32 set = hash_64(hint->addr ^ ((u64)hint->pid << 32),
			  UBLK_SHMEM_HINT_SHIFT);
	struct ublkzc_shmem_hint *first = hints->hints +
		set * UBLK_SHMEM_HINT_WAYS, *rarest = first;
	unsigned int i;

	for (i = 0; i < UBLK_SHMEM_HINT_WAYS; i++) {
		if (first[i].nr && ublk_shmem_same_hint(&first[i], hint)) {
			first[i].nr++;
			return;
		}
		if (first[i].nr < rarest->nr)
			rarest = &first[i];
	}
	if (rarest->nr > 1)
		rarest->nr--;
	else
		*rarest = *hint;
}

/* Where a page is in the memory of whom it belongs to. */
static struct ublkzc_shmem_hint ublk_shmem_hint_of(const struct bio_vec *bv)
{
	struct page *page = bv->bv_page + (bv->bv_offset >> PAGE_SHIFT);
	struct folio *folio = page_folio(page);
	struct ublkzc_shmem_hint hint = { .len = bv->bv_len, .nr = 1 };

	if (folio_test_anon(folio))
		hint.flags = UBLKZC_HINT_PRIVATE;
	else if (READ_ONCE(folio->mapping))
		hint.flags = UBLKZC_HINT_FILE;
	else
		return hint;
	hint.addr = ((u64)READ_ONCE(folio->index) + folio_page_idx(folio, page))
		* PAGE_SIZE + offset_in_page(bv->bv_offset);
	return hint;
}

/* One hint for what follows each other there, wherever it is physically. */
static void ublk_shmem_hint_pieces(struct ublk_shmem_hints *hints,
				   const struct request *req, u32 pid)
{
	struct ublkzc_shmem_hint last = { };
	struct req_iterator iter;
	struct bio_vec bv;

	rq_for_each_segment(bv, req, iter) {
		struct ublkzc_shmem_hint hint = ublk_shmem_hint_of(&bv);

		if (last.len && last.flags && hint.flags == last.flags &&
		    hint.addr == last.addr + last.len) {
			last.len += hint.len;
			continue;
		}
		if (last.len)
			ublk_shmem_add_hint(hints, &last);
		last = hint;
		last.pid = pid;
	}
	if (last.len)
		ublk_shmem_add_hint(hints, &last);
}

void ublk_shmem_hint(struct ublk_shmem *shmem, const struct request *req)
{
	/* made once, and there until the device goes */
	struct ublk_shmem_hints *hints = rcu_dereference_raw(shmem->hints);

	if (!hints)
		return;
	if (time_after(jiffies, READ_ONCE(hints->until))) {
		WRITE_ONCE(shmem->hinting, false);
		return;
	}
	if (!spin_trylock(&hints->lock))
		return;
	ublk_shmem_hint_pieces(hints, req, ublk_shmem_issuer_of(req));
	spin_unlock(&hints->lock);
}

/* As the caller sees it, whose namespace the process may not be in: then 0. */
static u32 ublk_shmem_pid_here(u32 pid)
{
	u32 here;

	rcu_read_lock();
	here = pid_vnr(find_pid_ns(pid, &init_pid_ns));
	rcu_read_unlock();
	return here;
}

/* Take up to @nr; those that are left stay for the next call. */
static unsigned int ublk_shmem_pop_hints(struct ublk_shmem_hints *hints,
					 struct ublkzc_shmem_hint *to,
					 unsigned int nr)
{
	unsigned int i, n = 0;

	spin_lock(&hints->lock);
	for (i = 0; i < UBLK_SHMEM_NR_HINTS && n < nr; i++) {
		if (!hints->hints[i].nr)
			continue;
		to[n++] = hints->hints[i];
		hints->hints[i].nr = 0;
	}
	spin_unlock(&hints->lock);
	for (i = 0; i < n; i++)
		to[i].pid = ublk_shmem_pid_here(to[i].pid);
	return n;
}

/* The table, which is made by the first call that wants hints, and then stays. */
static struct ublk_shmem_hints *ublk_shmem_get_hints(struct ublk_shmem *shmem)
{
	struct ublk_shmem_hints *hints =
		ublk_shmem_dereference(shmem, shmem->hints);

	lockdep_assert_held(&shmem->mutex);
	if (hints)
		return hints;
	hints = kvzalloc(sizeof(*hints), GFP_KERNEL_ACCOUNT);
	if (!hints)
		return NULL;
	spin_lock_init(&hints->lock);
	ublk_shmem_add_watcher();
	rcu_assign_pointer(shmem->hints, hints);
	return hints;
}

static int ublk_shmem_ask(struct ublk_shmem *shmem, u64 seconds,
			  struct ublkzc_shmem_hint *to, unsigned int nr)
{
	unsigned long until = jiffies + seconds * HZ;
	struct ublk_shmem_hints *hints;
	int ret = mutex_lock_killable(&shmem->mutex);

	if (ret)
		return ret;
	hints = ublk_shmem_get_hints(shmem);
	if (hints) {
		ret = ublk_shmem_pop_hints(hints, to, nr);
		WRITE_ONCE(hints->until, until);
		WRITE_ONCE(shmem->hinting, seconds != 0);
	} else {
		ret = -ENOMEM;
	}
	mutex_unlock(&shmem->mutex);
	if (ret >= 0 && seconds)
		ublk_shmem_watch(until);
	return ret;
}

int ublk_shmem_take_hints(struct ublk_shmem *shmem,
			  const struct ublksrv_ctrl_cmd *cmd)
{
	void __user *argp = (void __user *)(unsigned long)cmd->addr;
	unsigned int nr = min_t(unsigned int, cmd->len / sizeof(struct ublkzc_shmem_hint),
				UBLK_SHMEM_NR_HINTS);
	struct ublkzc_shmem_hint *hints;
	int ret;

	if (!(shmem->flags & UBLKZC_F_SHMEM_HINTS))
		return -EOPNOTSUPP;
	if (!nr || cmd->data[0] > UBLKZC_HINT_SECONDS_MAX)
		return -EINVAL;
	hints = kvmalloc_array(nr, sizeof(*hints), GFP_KERNEL_ACCOUNT);
	if (!hints)
		return -ENOMEM;
	ret = ublk_shmem_ask(shmem, cmd->data[0], hints, nr);
	if (ret > 0 && copy_to_user(argp, hints, ret * sizeof(*hints)))
		ret = -EFAULT;
	kvfree(hints);
	return ret;
}

void ublk_shmem_free_hints(struct ublk_shmem *shmem)
{
	if (!rcu_access_pointer(shmem->hints))
		return;
	ublk_shmem_remove_watcher();
	kvfree(rcu_dereference_protected(shmem->hints, true));
}
