// SPDX-License-Identifier: GPL-2.0
/*
 * Shared memory zero copy: buffers are registered, unregistered and listed.
 *
 * A server pins memory of its own with a device, so that requests in that
 * memory can be served in place. Nothing is frozen meanwhile: a buffer becomes
 * visible as a whole, and unregistering waits, killably, for the requests in
 * that buffer alone.
 */
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include "ublk_shmem_priv.h"

/* pages pinned by one call, bounds the time without a reschedule */
#define UBLK_SHMEM_PIN_BATCH	512

/*
 * Pages pinned for an unprivileged device count against the limit of the user
 * who registers them. Not of the process: the buffer outlives it. NULL when
 * there is nothing to count.
 */
static struct user_struct *ublk_shmem_charge(const struct ublk_shmem *shmem,
					     unsigned long nr_pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	struct user_struct *user = current_user();
	long locked = atomic_long_read(&user->locked_vm);

	if (!(shmem->flags & UBLK_F_UNPRIVILEGED_DEV) ||
	    capable(CAP_IPC_LOCK))
		return NULL;
	do {
		if (locked + nr_pages > limit)
			return ERR_PTR(-ENOMEM);
	} while (!atomic_long_try_cmpxchg(&user->locked_vm, &locked,
					  locked + nr_pages));
	return get_uid(user);
}

static void ublk_shmem_uncharge(struct user_struct *user,
				unsigned long nr_pages)
{
	if (!user)
		return;
	atomic_long_sub(nr_pages, &user->locked_vm);
	free_uid(user);
}

void ublk_shmem_put_buf(struct ublk_shmem_buf *buf)
{
	if (!refcount_dec_and_test(&buf->users))
		return;
	percpu_ref_exit(&buf->ref);
	ublk_shmem_foreign_free(buf->foreign);
	kvfree(buf);
}

/* Of a buffer that nothing finds any more and no request refers to. */
static void ublk_shmem_unpin(struct ublk_shmem_buf *buf)
{
	unsigned int i;

	if (buf->foreign) {
		ublk_shmem_foreign_release(buf);
		return;
	}
	for (i = 0; i < buf->nr_runs; i++) {
		/* who wrote to it did so by a mapping or a pin of their own */
		unpin_user_page_range_dirty_lock(pfn_to_page(buf->runs[i].pfn),
						 buf->runs[i].nr_pages, false);
		cond_resched();
	}
	ublk_shmem_uncharge(buf->charged, buf->nr_pages);
}

/*
 * The last request is done with a buffer that is being unregistered. It has
 * not been found for a grace period, as killing its reference waits for one.
 */
static void ublk_shmem_drained(struct percpu_ref *ref)
{
	struct ublk_shmem_buf *buf = container_of(ref, struct ublk_shmem_buf,
						  ref);
	struct ublk_shmem *shmem = buf->shmem;

	/* millions of pages may be unpinned; 7.x warns of system_unbound_wq */
	if (llist_add(&buf->drained, &shmem->drained))
		queue_work(system_long_wq, &shmem->reap_work);
}

/* Its index is free again, and who waits for that is told. */
static void ublk_shmem_forget(struct ublk_shmem *shmem,
			      struct ublk_shmem_buf *buf)
{
	lockdep_assert_held(&shmem->mutex);
	spin_lock(&shmem->index_lock);
	ublk_shmem_set_buf(shmem, buf->index, NULL);
	spin_unlock(&shmem->index_lock);
	ida_free(&shmem->indexes, buf->index);
	complete_all(&buf->gone);
	ublk_shmem_put_buf(buf);
}

static void ublk_shmem_reap(struct work_struct *work)
{
	struct ublk_shmem *shmem = container_of(work, struct ublk_shmem,
						reap_work);
	struct llist_node *drained = llist_del_all(&shmem->drained);
	struct ublk_shmem_buf *buf, *next;

	llist_for_each_entry_safe(buf, next, drained, drained) {
		ublk_shmem_unpin(buf);
		mutex_lock(&shmem->mutex);
		buf->released = true;
		/* the index of a lost one is the server's until it gives it back */
		if (buf->unregistered)
			ublk_shmem_forget(shmem, buf);
		mutex_unlock(&shmem->mutex);
	}
}

static struct ublk_shmem_buf *ublk_shmem_alloc(struct ublk_shmem *shmem,
					       unsigned int nr_runs)
{
	struct ublk_shmem_buf *buf;
	size_t size = struct_size(buf, runs, nr_runs);

	/* kmalloc() would round up to the next power of two */
	buf = size > PAGE_SIZE ? __vmalloc(size, GFP_KERNEL_ACCOUNT) :
		kmalloc(size, GFP_KERNEL_ACCOUNT);
	if (!buf)
		return NULL;
	memset(buf, 0, sizeof(*buf));
	if (percpu_ref_init(&buf->ref, ublk_shmem_drained, 0,
			    GFP_KERNEL_ACCOUNT)) {
		kvfree(buf);
		return NULL;
	}
	buf->shmem = shmem;
	buf->nr_runs = nr_runs;
	init_completion(&buf->gone);
	refcount_set(&buf->users, 1);
	return buf;
}

/* Pin all or nothing. */
static int ublk_shmem_pin(const struct ublk_shmem_buf_reg *reg,
			  struct page **pages, unsigned long nr_pages)
{
	unsigned int gup_flags = FOLL_LONGTERM;
	unsigned long done = 0;
	int ret = 0;

	if (!(reg->flags & UBLK_SHMEM_BUF_READ_ONLY))
		gup_flags |= FOLL_WRITE;
	while (done < nr_pages) {
		ret = pin_user_pages_fast(reg->addr + (done << PAGE_SHIFT),
					  min(nr_pages - done, UBLK_SHMEM_PIN_BATCH),
					  gup_flags, pages + done);
		if (ret <= 0)
			break;
		done += ret;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		cond_resched();
	}
	if (done == nr_pages && ret > 0)
		return 0;
	unpin_user_pages(pages, done);
	return ret == -ENOMEM || ret == -EINTR ? ret : -EFAULT;
}

static bool ublk_shmem_run_goes_on(struct page **pages, unsigned long i)
{
	return page_to_pfn(pages[i]) == page_to_pfn(pages[i - 1]) + 1;
}

static unsigned int ublk_shmem_count_runs(struct page **pages,
					  unsigned long nr_pages)
{
	unsigned int nr = 1;
	unsigned long i;

	for (i = 1; i < nr_pages; i++)
		if (!ublk_shmem_run_goes_on(pages, i))
			nr++;
	return nr;
}

static void ublk_shmem_fill_runs(struct ublk_shmem_buf *buf,
				 struct page **pages, unsigned long nr_pages)
{
	struct ublk_shmem_run *run = buf->runs;
	unsigned long i;

	for (i = 0; i < nr_pages; i++) {
		if (i && ublk_shmem_run_goes_on(pages, i)) {
			run->nr_pages++;
			continue;
		}
		if (i)
			run++;
		*run = (struct ublk_shmem_run) {
			.pfn = page_to_pfn(pages[i]),
			.first_page = i,
			.nr_pages = 1,
		};
	}
	buf->nr_pages = nr_pages;
}

struct ublk_shmem_buf *ublk_shmem_new_buf(struct ublk_shmem *shmem,
					  struct page **pages,
					  unsigned long nr_pages)
{
	unsigned int nr_runs = ublk_shmem_count_runs(pages, nr_pages);
	struct ublk_shmem_buf *buf = ublk_shmem_alloc(shmem, nr_runs);

	if (buf)
		ublk_shmem_fill_runs(buf, pages, nr_pages);
	return buf;
}

/* The pages are the buffer's afterwards; on failure they are unpinned. */
static struct ublk_shmem_buf *
ublk_shmem_build(struct ublk_shmem *shmem, const struct ublk_shmem_buf_reg *reg)
{
	unsigned long nr_pages = reg->len >> PAGE_SHIFT;
	struct ublk_shmem_buf *buf;
	struct page **pages;
	int ret;

	pages = kvmalloc_array(nr_pages, sizeof(*pages), GFP_KERNEL_ACCOUNT);
	if (!pages)
		return ERR_PTR(-ENOMEM);
	ret = ublk_shmem_pin(reg, pages, nr_pages);
	if (ret) {
		kvfree(pages);
		return ERR_PTR(ret);
	}
	buf = ublk_shmem_new_buf(shmem, pages, nr_pages);
	if (buf)
		buf->read_only = reg->flags & UBLK_SHMEM_BUF_READ_ONLY;
	else
		unpin_user_pages(pages, nr_pages);
	kvfree(pages);
	return buf ?: ERR_PTR(-ENOMEM);
}

static int ublk_shmem_try_publish(struct ublk_shmem *shmem,
				  struct ublk_shmem_buf *buf)
{
	u32 *order = ublk_shmem_sort(buf);
	int ret;

	if (!order)
		return -ENOMEM;
	ret = mutex_lock_killable(&shmem->mutex);
	if (!ret) {
		/* once the mutex is released somebody may unregister it */
		ret = ublk_shmem_insert(shmem, buf, order) ?: buf->index;
		if (ret >= 0 && buf->foreign)
			ublk_shmem_foreign_published(shmem, buf);
		mutex_unlock(&shmem->mutex);
	}
	kvfree(order);
	return ret;
}

int ublk_shmem_publish(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf)
{
	int ret = ublk_shmem_try_publish(shmem, buf);

	if (ret < 0) {
		ublk_shmem_unpin(buf);
		ublk_shmem_put_buf(buf);
	}
	return ret;
}

int ublk_shmem_reg_buf(struct ublk_shmem *shmem,
		       const struct ublksrv_ctrl_cmd *cmd)
{
	void __user *argp = (void __user *)(unsigned long)cmd->addr;
	struct ublk_shmem_buf_reg reg = { };
	struct ublk_shmem_buf *buf;
	struct user_struct *user;

	if (!(shmem->flags & UBLK_F_SHMEM_ZC))
		return -EOPNOTSUPP;
	if (copy_from_user(&reg, argp, min_t(size_t, cmd->len, sizeof(reg))))
		return -EFAULT;
	if (reg.flags & ~UBLK_SHMEM_BUF_READ_ONLY || reg.reserved)
		return -EINVAL;
	if (!reg.len || reg.len > UBLK_SHMEM_BUF_SIZE_MAX ||
	    !PAGE_ALIGNED(reg.len) || !PAGE_ALIGNED(reg.addr))
		return -EINVAL;
	if (reg.addr > ULONG_MAX || reg.len > ULONG_MAX - reg.addr)
		return -EOVERFLOW;

	user = ublk_shmem_charge(shmem, reg.len >> PAGE_SHIFT);
	if (IS_ERR(user))
		return PTR_ERR(user);
	buf = ublk_shmem_build(shmem, &reg);
	if (IS_ERR(buf)) {
		ublk_shmem_uncharge(user, reg.len >> PAGE_SHIFT);
		return PTR_ERR(buf);
	}
	buf->charged = user;

	return ublk_shmem_publish(shmem, buf);
}

/*
 * No request can match from here on; those that did keep their reference, and
 * with the last one the buffer goes by itself.
 */
void ublk_shmem_kill(struct ublk_shmem *shmem, struct ublk_shmem_buf *buf)
{
	lockdep_assert_held(&shmem->mutex);
	if (buf->dying)
		return;
	buf->dying = true;
	ublk_shmem_erase(shmem, buf);
	percpu_ref_kill(&buf->ref);
}

static void ublk_shmem_unregister(struct ublk_shmem *shmem,
				  struct ublk_shmem_buf *buf)
{
	ublk_shmem_kill(shmem, buf);
	buf->unregistered = true;
	if (buf->released)
		ublk_shmem_forget(shmem, buf);
}

/*
 * Waits for the requests in this buffer and no others. The wait ends early
 * when the caller is killed, who may be the one that those requests wait for.
 * Of several that wait, one is told that it has unregistered the buffer.
 */
int ublk_shmem_unreg_buf(struct ublk_shmem *shmem,
			 const struct ublksrv_ctrl_cmd *cmd)
{
	struct ublk_shmem_buf *buf;
	u64 index = cmd->data[0];
	int ret;

	if (!(shmem->flags & UBLK_F_SHMEM_ZC))
		return -EOPNOTSUPP;
	if (index > UBLK_SHMEM_INDEX_MAX)
		return -EINVAL;

	ret = mutex_lock_killable(&shmem->mutex);
	if (ret)
		return ret;
	buf = ublk_shmem_get_buf(shmem, index);
	if (buf) {
		refcount_inc(&buf->users);
		ublk_shmem_unregister(shmem, buf);
	}
	mutex_unlock(&shmem->mutex);
	if (!buf)
		return -ENOENT;

	/* not -ERESTARTSYS: nobody restarts a command of io_uring */
	if (wait_for_completion_state(&buf->gone, TASK_KILLABLE | TASK_FREEZABLE))
		ret = -EINTR;
	else if (atomic_inc_return(&buf->nr_told) > 1)
		ret = -ENOENT;
	ublk_shmem_put_buf(buf);
	return ret;
}

static u32 ublk_shmem_info_flags(const struct ublk_shmem_buf *buf)
{
	const bool lost = READ_ONCE(buf->lost);
	u32 flags = 0;

	if (buf->read_only)
		flags |= UBLK_SHMEM_BUF_READ_ONLY;
	if (buf->foreign)
		flags |= UBLKZC_SHMEM_BUF_FOREIGN;
	if (lost)
		flags |= UBLKZC_SHMEM_BUF_ENDED;
	if ((buf->dying || lost) && !buf->released)
		flags |= UBLKZC_SHMEM_BUF_DYING;
	return flags;
}

/* Returns how many there are. */
static unsigned int ublk_shmem_fill_infos(struct ublk_shmem *shmem,
					  unsigned int index,
					  struct ublkzc_shmem_buf_info *infos,
					  unsigned int nr)
{
	struct ublk_shmem_buf *buf;
	unsigned int n = 0;

	for (; (buf = ublk_shmem_next_buf(shmem, &index)); index++) {
		if (n == nr)
			break;
		infos[n++] = (struct ublkzc_shmem_buf_info) {
			.len = (u64)buf->nr_pages << PAGE_SHIFT,
			.index = index,
			.flags = ublk_shmem_info_flags(buf),
			.nr_runs = buf->nr_runs,
			.pid = buf->foreign ?
				ublk_shmem_foreign_pid(buf->foreign) : 0,
		};
	}
	return n;
}

int ublk_shmem_list_bufs(struct ublk_shmem *shmem,
			 const struct ublksrv_ctrl_cmd *cmd)
{
	void __user *argp = (void __user *)(unsigned long)cmd->addr;
	struct ublkzc_shmem_buf_info *infos;
	u64 from = cmd->data[0];
	int ret;

	if (!(shmem->flags & UBLKZC_F_SHMEM_LIST))
		return -EOPNOTSUPP;
	if (from > UBLK_SHMEM_INDEX_MAX || cmd->len < sizeof(*infos))
		return -EINVAL;

	/* not copied out under the mutex: a fault can take any time */
	infos = kvmalloc(cmd->len, GFP_KERNEL_ACCOUNT);
	if (!infos)
		return -ENOMEM;
	ret = mutex_lock_killable(&shmem->mutex);
	if (!ret) {
		ret = ublk_shmem_fill_infos(shmem, from, infos,
					    cmd->len / sizeof(*infos));
		mutex_unlock(&shmem->mutex);
	}
	if (ret > 0 && copy_to_user(argp, infos, ret * sizeof(*infos)))
		ret = -EFAULT;
	kvfree(infos);
	return ret;
}

/* How a device with these flags can be served: -EINVAL if not at all. */
static int ublk_shmem_check_flags(u64 flags)
{
	if (!(flags & UBLK_SHMEM_F_ALL))
		return 0;
	if (!(flags & UBLK_F_SHMEM_ZC))
		return -EINVAL;
	/*
	 * NEED_GET_DATA hands over the data's address in a second step, which
	 * a request without data to hand over does not have.
	 */
	if (flags & UBLK_F_NEED_GET_DATA)
		return -EINVAL;
	/* the address of a tag's list takes a field that must be free */
	if ((flags & UBLKZC_F_SHMEM_SEGS) &&
	    (!(flags & UBLK_F_USER_COPY) || (flags & UBLK_F_ZONED)))
		return -EINVAL;
	/* other processes' memory, and where it is, are not for everybody */
	if ((flags & (UBLKZC_F_SHMEM_FOREIGN | UBLKZC_F_SHMEM_HINTS)) &&
	    (flags & UBLK_F_UNPRIVILEGED_DEV))
		return -EINVAL;
	if ((flags & UBLKZC_F_SHMEM_FOREIGN) && !(flags & UBLKZC_F_SHMEM_LIST))
		return -EINVAL;
	return 0;
}

int ublk_shmem_init(struct ublk_shmem *shmem,
		    const struct ublksrv_ctrl_dev_info *info)
{
	int ret = ublk_shmem_check_flags(info->flags);

	if (ret)
		return ret;
	shmem->flags = info->flags;
	shmem->depth = info->queue_depth;
	if (ublk_shmem_lists_segs(shmem)) {
		shmem->also_held = kvcalloc(info->nr_hw_queues * shmem->depth,
					    sizeof(*shmem->also_held),
					    GFP_KERNEL_ACCOUNT);
		if (!shmem->also_held)
			return -ENOMEM;
	}
	mutex_init(&shmem->mutex);
	mutex_init(&shmem->mapping_mutex);
	spin_lock_init(&shmem->index_lock);
	ida_init(&shmem->indexes);
	init_llist_head(&shmem->drained);
	INIT_WORK(&shmem->reap_work, ublk_shmem_reap);
	init_llist_head(&shmem->lost);
	INIT_WORK(&shmem->lost_work, ublk_shmem_lost);
	return 0;
}

/* As ublk_shmem_next_buf(); what is found has to be put. */
static struct ublk_shmem_buf *
ublk_shmem_get_next_buf(struct ublk_shmem *shmem, unsigned int *index)
{
	struct ublk_shmem_buf *buf;

	mutex_lock(&shmem->mutex);
	buf = ublk_shmem_next_buf(shmem, index);
	if (buf)
		refcount_inc(&buf->users);
	mutex_unlock(&shmem->mutex);
	return buf;
}

void ublk_shmem_exit(struct ublk_shmem *shmem)
{
	struct ublk_shmem_buf *buf;
	unsigned int index;

	mutex_lock(&shmem->mutex);
	for (index = 0; (buf = ublk_shmem_next_buf(shmem, &index)); index++)
		ublk_shmem_unregister(shmem, buf);
	mutex_unlock(&shmem->mutex);
	for (index = 0; (buf = ublk_shmem_get_next_buf(shmem, &index)); index++) {
		wait_for_completion(&buf->gone);
		ublk_shmem_put_buf(buf);
	}
	if (shmem->flags & UBLK_F_SHMEM_ZC) {
		/* the last ublk_shmem_drained() and the last reaping */
		synchronize_rcu();
		flush_work(&shmem->reap_work);
		/* no memory is lost any more: what is in there is just put */
		flush_work(&shmem->lost_work);
	}
	ublk_shmem_free_hints(shmem);
	ublk_shmem_free_tables(shmem);
	ida_destroy(&shmem->indexes);
	mutex_destroy(&shmem->mapping_mutex);
	mutex_destroy(&shmem->mutex);
	kvfree(shmem->also_held);
}
