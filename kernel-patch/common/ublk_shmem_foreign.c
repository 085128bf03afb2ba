// SPDX-License-Identifier: GPL-2.0
/*
 * Foreign buffers: private memory of another process, registered where it is.
 *
 * The pages are referenced, not pinned: nothing may be in the process's way.
 * What keeps this right is that an MMU notifier is told before any page of the
 * range is unmapped, discarded, moved, reclaimed or shared by a fork. From then
 * on the buffer matches nothing. The rest takes its time: the requests in the
 * buffer finish, the server's mapping of it is revoked, and only then the
 * references are put, so a page that is somebody else's again is never seen by
 * the server. A request in flight is no case of its own: its pages are those
 * that its bio has pinned, whether data gets there by a copy or by the server,
 * and fork() knows what to do with pinned pages.
 *
 * So the notifier's callback, which may come from reclaim, does next to nothing:
 * it sets a flag, signals an event and queues work.
 */
#include <linux/capability.h>
#include <linux/eventfd.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "ublk_shmem_priv.h"

#ifdef CONFIG_MMU_NOTIFIER

/* pages taken by one call: how long the process's mmap_lock is held at a time */
#define UBLK_SHMEM_TAKE_BATCH	512UL

static bool foreign_memory = true;
module_param(foreign_memory, bool, 0444);
MODULE_PARM_DESC(foreign_memory,
		 "Let privileged servers register memory of other processes (default: Y)");

struct ublk_shmem_foreign {
	struct mmu_interval_notifier notifier;
	struct pid		*pid;
	struct eventfd_ctx	*event;		/* or NULL */

	spinlock_t		lock;		/* no other is taken under it */
	bool			lost;
	struct ublk_shmem_buf	*buf;		/* once it is found */
	struct llist_node	in_lost;
};

u64 ublk_shmem_foreign_features(void)
{
	return foreign_memory && IS_ENABLED(CONFIG_64BIT) ?
		UBLKZC_F_SHMEM_FOREIGN | UBLKZC_F_SHMEM_HINTS : 0;
}

void ublk_shmem_foreign_free(struct ublk_shmem_foreign *foreign)
{
	if (!foreign)
		return;
	if (foreign->event)
		eventfd_ctx_put(foreign->event);
	put_pid(foreign->pid);
	kfree(foreign);
}

u32 ublk_shmem_foreign_pid(const struct ublk_shmem_foreign *foreign)
{
	return pid_vnr(foreign->pid);
}

/* --- what is gone ------------------------------------------------------- */

/* The same pages at the same addresses, with other permissions or bits. */
static bool ublk_shmem_still_there(const struct mmu_notifier_range *range)
{
	return range->event == MMU_NOTIFY_PROTECTION_VMA ||
		range->event == MMU_NOTIFY_SOFT_DIRTY;
}

static void ublk_shmem_lose(struct ublk_shmem_foreign *foreign)
{
	struct ublk_shmem_buf *buf = foreign->buf;

	lockdep_assert_held(&foreign->lock);
	if (foreign->lost)
		return;
	WRITE_ONCE(foreign->lost, true);
	if (!buf)
		return;
	WRITE_ONCE(buf->lost, true);
	/* the notifier is there, so the buffer is */
	refcount_inc(&buf->users);
	if (llist_add(&foreign->in_lost, &buf->shmem->lost))
		queue_work(system_long_wq, &buf->shmem->lost_work);
	if (foreign->event)
		eventfd_signal(foreign->event);
}

static bool ublk_shmem_invalidate(struct mmu_interval_notifier *notifier,
				  const struct mmu_notifier_range *range,
				  unsigned long seq)
{
	struct ublk_shmem_foreign *foreign =
		container_of(notifier, struct ublk_shmem_foreign, notifier);

	spin_lock(&foreign->lock);
	mmu_interval_set_seq(notifier, seq);
	if (!ublk_shmem_still_there(range))
		ublk_shmem_lose(foreign);
	spin_unlock(&foreign->lock);
	return true;
}

static const struct mmu_interval_notifier_ops ublk_shmem_notifier_ops = {
	.invalidate = ublk_shmem_invalidate,
};

void ublk_shmem_lost(struct work_struct *work)
{
	struct ublk_shmem *shmem = container_of(work, struct ublk_shmem,
						lost_work);
	struct llist_node *lost = llist_del_all(&shmem->lost);
	struct ublk_shmem_foreign *foreign, *next;

	mutex_lock(&shmem->mutex);
	llist_for_each_entry_safe(foreign, next, lost, in_lost) {
		ublk_shmem_kill(shmem, foreign->buf);
		ublk_shmem_put_buf(foreign->buf);
	}
	mutex_unlock(&shmem->mutex);
}

void ublk_shmem_foreign_published(struct ublk_shmem *shmem,
				  struct ublk_shmem_buf *buf)
{
	struct ublk_shmem_foreign *foreign = buf->foreign;

	lockdep_assert_held(&shmem->mutex);
	spin_lock(&foreign->lock);
	foreign->buf = buf;
	/* it went while it was not found yet: as if right after */
	if (foreign->lost) {
		foreign->lost = false;
		ublk_shmem_lose(foreign);
	}
	spin_unlock(&foreign->lock);
}

/* The references that get_user_pages_remote() took, one for each page. */
static void ublk_shmem_put_run(const struct ublk_shmem_run *run)
{
	unsigned long pfn = run->pfn, end = pfn + run->nr_pages;

	while (pfn < end) {
		struct folio *folio = page_folio(pfn_to_page(pfn));
		unsigned long nr = min(end, folio_pfn(folio) +
				       folio_nr_pages(folio)) - pfn;

		folio_put_refs(folio, nr);
		pfn += nr;
		cond_resched();
	}
}

static loff_t ublk_shmem_map_offset(const struct ublk_shmem_buf *buf)
{
	return UBLKZC_FOREIGN_OFFSET + ((u64)buf->index << 32);
}

void ublk_shmem_foreign_release(struct ublk_shmem_buf *buf)
{
	struct ublk_shmem *shmem = buf->shmem;
	unsigned int i;

	mmu_interval_notifier_remove(&buf->foreign->notifier);
	/* faults need a reference to the buffer, and there is none left */
	mutex_lock(&shmem->mapping_mutex);
	if (shmem->mapping)
		unmap_mapping_range(shmem->mapping, ublk_shmem_map_offset(buf),
				    (loff_t)buf->nr_pages << PAGE_SHIFT, 1);
	mutex_unlock(&shmem->mapping_mutex);
	for (i = 0; i < buf->nr_runs; i++)
		ublk_shmem_put_run(&buf->runs[i]);
}

/* --- the server's mapping ----------------------------------------------- */

/* The buffer of that index, with a reference that keeps its pages, or NULL. */
static struct ublk_shmem_buf *
ublk_shmem_get_mapped(struct ublk_shmem *shmem, unsigned int index)
{
	struct ublk_shmem_buf *buf;

	rcu_read_lock();
	spin_lock(&shmem->index_lock);
	buf = ublk_shmem_get_buf(shmem, index);
	/* also of one that is dying: the requests in it are to be served */
	if (buf && (!buf->foreign || !percpu_ref_tryget(&buf->ref)))
		buf = NULL;
	spin_unlock(&shmem->index_lock);
	rcu_read_unlock();
	return buf;
}

static const struct ublk_shmem_run *
ublk_shmem_run_of(const struct ublk_shmem_buf *buf, unsigned long page)
{
	unsigned int low = 0, high = buf->nr_runs;

	while (high - low > 1) {
		unsigned int mid = (low + high) / 2;

		if (buf->runs[mid].first_page > page)
			high = mid;
		else
			low = mid;
	}
	return &buf->runs[low];
}

/* What follows the page in its run is mapped with it, as far as a page table goes. */
static vm_fault_t ublk_shmem_map_run(struct vm_fault *vmf,
				     const struct ublk_shmem_run *run,
				     unsigned long page)
{
	unsigned long pfn = run->pfn + (page - run->first_page);
	unsigned long left = run->first_page + run->nr_pages - page;
	unsigned long end = min(vmf->vma->vm_end, ALIGN(vmf->address + 1, PMD_SIZE));
	unsigned long i, nr = min(left, (end - vmf->address) >> PAGE_SHIFT);
	vm_fault_t ret = VM_FAULT_NOPAGE;

	for (i = 0; i < nr && ret == VM_FAULT_NOPAGE; i++)
		ret = vmf_insert_pfn(vmf->vma, vmf->address + i * PAGE_SIZE,
				     pfn + i);
	return i > 1 ? VM_FAULT_NOPAGE : ret;
}

static vm_fault_t ublk_shmem_fault(struct vm_fault *vmf)
{
	struct ublk_shmem *shmem = vmf->vma->vm_private_data;
	u64 at = ((u64)vmf->pgoff << PAGE_SHIFT) - UBLKZC_FOREIGN_OFFSET;
	unsigned long page = (u32)at >> PAGE_SHIFT;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	struct ublk_shmem_buf *buf;

	buf = ublk_shmem_get_mapped(shmem, at >> 32);
	if (!buf)
		return VM_FAULT_SIGBUS;
	if (page < buf->nr_pages)
		ret = ublk_shmem_map_run(vmf, ublk_shmem_run_of(buf, page), page);
	percpu_ref_put(&buf->ref);
	return ret;
}

static const struct vm_operations_struct ublk_shmem_vm_ops = {
	.fault = ublk_shmem_fault,
};

int ublk_shmem_mmap(struct ublk_shmem *shmem, struct vm_area_struct *vma)
{
	u64 first = ((u64)vma->vm_pgoff << PAGE_SHIFT) - UBLKZC_FOREIGN_OFFSET;
	u64 last = first + (vma->vm_end - vma->vm_start) - 1;

	if (!(shmem->flags & UBLKZC_F_SHMEM_FOREIGN))
		return -EOPNOTSUPP;
	if (!(vma->vm_flags & VM_SHARED) || (vma->vm_flags & VM_EXEC))
		return -EINVAL;
	if (last >> 32 != first >> 32 || first >> 32 > UBLK_SHMEM_INDEX_MAX)
		return -EINVAL;
	vm_flags_mod(vma, VM_PFNMAP | VM_IO | VM_DONTCOPY | VM_DONTEXPAND |
		     VM_DONTDUMP, VM_MAYEXEC);
	vma->vm_ops = &ublk_shmem_vm_ops;
	vma->vm_private_data = shmem;
	/* the device is open once at a time, so all mappings of it are in there */
	mutex_lock(&shmem->mapping_mutex);
	shmem->mapping = vma->vm_file->f_mapping;
	mutex_unlock(&shmem->mapping_mutex);
	return 0;
}

void ublk_shmem_closed(struct ublk_shmem *shmem)
{
	if (!(shmem->flags & UBLKZC_F_SHMEM_FOREIGN))
		return;
	mutex_lock(&shmem->mapping_mutex);
	shmem->mapping = NULL;
	mutex_unlock(&shmem->mapping_mutex);
}

/* --- registering -------------------------------------------------------- */

static struct mm_struct *ublk_shmem_mm_of(struct pid *pid)
{
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);
	struct mm_struct *mm;

	if (!task)
		return NULL;
	mm = get_task_mm(task);
	put_task_struct(task);
	return mm;
}

/* Under the mmap_lock. */
static bool ublk_shmem_is_private(struct mm_struct *mm, unsigned long addr,
				  unsigned long end)
{
	struct vm_area_struct *vma;

	for (; addr < end; addr = vma->vm_end) {
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start > addr || !vma_is_anonymous(vma) ||
		    vma->vm_flags & (VM_SHARED | VM_IO | VM_PFNMAP | VM_MIXEDMAP))
			return false;
	}
	return true;
}

/*
 * A page that is mapped writable in a private mapping is the process's own
 * alone. Returns how many pages there are before the first that is not.
 */
static long ublk_shmem_take_batch(struct mm_struct *mm, unsigned long addr,
				  unsigned long nr, struct page **pages)
{
	long ret;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	if (ublk_shmem_is_private(mm, addr, addr + (nr << PAGE_SHIFT)))
		ret = get_user_pages_remote(mm, addr, nr,
					    FOLL_WRITE | FOLL_NOFAULT, pages,
					    NULL);
	else
		ret = -EINVAL;
	mmap_read_unlock(mm);
	return ret == -EFAULT || !ret ? -ENODATA : ret;
}

/* All or nothing. */
static int ublk_shmem_take(struct mm_struct *mm, unsigned long addr,
			   struct page **pages, unsigned long nr_pages)
{
	unsigned long done = 0;
	long ret = 0;

	while (done < nr_pages) {
		ret = ublk_shmem_take_batch(mm, addr + (done << PAGE_SHIFT),
					    min(nr_pages - done, UBLK_SHMEM_TAKE_BATCH),
					    pages + done);
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
	while (done)
		put_page(pages[--done]);
	return ret;
}

/* A buffer of what is there, whose notifier is @foreign's. */
static struct ublk_shmem_buf *
ublk_shmem_build_foreign(struct ublk_shmem *shmem, struct mm_struct *mm,
			 const struct ublkzc_shmem_foreign_reg *reg,
			 struct ublk_shmem_foreign *foreign)
{
	unsigned long i, nr_pages = reg->len >> PAGE_SHIFT;
	struct ublk_shmem_buf *buf;
	struct page **pages;
	int ret;

	pages = kvmalloc_array(nr_pages, sizeof(*pages), GFP_KERNEL_ACCOUNT);
	if (!pages)
		return ERR_PTR(-ENOMEM);
	/* what goes on already is not told: wait until it has ended */
	mmu_interval_read_begin(&foreign->notifier);
	ret = ublk_shmem_take(mm, reg->addr, pages, nr_pages);
	if (ret) {
		kvfree(pages);
		return ERR_PTR(ret);
	}
	buf = READ_ONCE(foreign->lost) ? ERR_PTR(-EAGAIN) :
		ublk_shmem_new_buf(shmem, pages, nr_pages) ?: ERR_PTR(-ENOMEM);
	if (IS_ERR(buf))
		for (i = 0; i < nr_pages; i++)
			put_page(pages[i]);
	else
		buf->foreign = foreign;
	kvfree(pages);
	return buf;
}

static struct ublk_shmem_foreign *
ublk_shmem_new_foreign(const struct ublkzc_shmem_foreign_reg *reg)
{
	struct ublk_shmem_foreign *foreign;

	foreign = kzalloc(sizeof(*foreign), GFP_KERNEL_ACCOUNT);
	if (!foreign)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&foreign->lock);
	if (reg->event_fd != -1) {
		struct eventfd_ctx *event = eventfd_ctx_fdget(reg->event_fd);

		if (IS_ERR(event)) {
			kfree(foreign);
			return ERR_CAST(event);
		}
		foreign->event = event;
	}
	foreign->pid = find_get_pid(reg->pid);
	return foreign;
}

/* mmu_interval_notifier_insert() cannot be killed while the process is stuck. */
static int ublk_shmem_insert_notifier(struct ublk_shmem_foreign *foreign,
				      struct mm_struct *mm, unsigned long addr,
				      unsigned long len)
{
	int ret;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	ret = mmu_interval_notifier_insert_locked(&foreign->notifier, mm, addr,
						  len, &ublk_shmem_notifier_ops);
	mmap_write_unlock(mm);
	return ret;
}

/* The memory of @mm, of which @foreign is told from here on. */
static int ublk_shmem_reg_mm(struct ublk_shmem *shmem, struct mm_struct *mm,
			     const struct ublkzc_shmem_foreign_reg *reg,
			     struct ublk_shmem_foreign *foreign)
{
	struct ublk_shmem_buf *buf;
	int ret;

	ret = ublk_shmem_insert_notifier(foreign, mm, reg->addr, reg->len);
	if (ret) {
		ublk_shmem_foreign_free(foreign);
		return ret;
	}
	buf = ublk_shmem_build_foreign(shmem, mm, reg, foreign);
	if (IS_ERR(buf)) {
		mmu_interval_notifier_remove(&foreign->notifier);
		ublk_shmem_foreign_free(foreign);
		return PTR_ERR(buf);
	}
	/* who registers again what was just lost need not wait for it */
	flush_work(&shmem->lost_work);
	return ublk_shmem_publish(shmem, buf);
}

int ublk_shmem_reg_foreign(struct ublk_shmem *shmem,
			   const struct ublksrv_ctrl_cmd *cmd)
{
	void __user *argp = (void __user *)(unsigned long)cmd->addr;
	struct ublkzc_shmem_foreign_reg reg;
	struct ublk_shmem_foreign *foreign;
	struct mm_struct *mm;
	int ret;

	if (!(shmem->flags & UBLKZC_F_SHMEM_FOREIGN))
		return -EOPNOTSUPP;
	if (!capable(CAP_SYS_PTRACE))
		return -EPERM;
	if (cmd->len < sizeof(reg))
		return -EINVAL;
	if (copy_from_user(&reg, argp, sizeof(reg)))
		return -EFAULT;
	if (!reg.len || reg.len > UBLK_SHMEM_BUF_SIZE_MAX || reg.reserved ||
	    !PAGE_ALIGNED(reg.len) || !PAGE_ALIGNED(reg.addr) ||
	    reg.addr >= TASK_SIZE_MAX || reg.len > TASK_SIZE_MAX - reg.addr)
		return -EINVAL;

	foreign = ublk_shmem_new_foreign(&reg);
	if (IS_ERR(foreign))
		return PTR_ERR(foreign);
	mm = ublk_shmem_mm_of(foreign->pid);
	if (!mm) {
		ublk_shmem_foreign_free(foreign);
		return -ESRCH;
	}
	ret = ublk_shmem_reg_mm(shmem, mm, &reg, foreign);
	mmput(mm);
	return ret;
}

#else /* nobody would tell what is gone: there are no foreign buffers */

u64 ublk_shmem_foreign_features(void)
{
	return 0;
}

int ublk_shmem_reg_foreign(struct ublk_shmem *shmem,
			   const struct ublksrv_ctrl_cmd *cmd)
{
	return -EOPNOTSUPP;
}

int ublk_shmem_mmap(struct ublk_shmem *shmem, struct vm_area_struct *vma)
{
	return -EOPNOTSUPP;
}

void ublk_shmem_closed(struct ublk_shmem *shmem)
{
}

void ublk_shmem_foreign_published(struct ublk_shmem *shmem,
				  struct ublk_shmem_buf *buf)
{
}

void ublk_shmem_foreign_release(struct ublk_shmem_buf *buf)
{
}

void ublk_shmem_foreign_free(struct ublk_shmem_foreign *foreign)
{
}

u32 ublk_shmem_foreign_pid(const struct ublk_shmem_foreign *foreign)
{
	return 0;
}

void ublk_shmem_lost(struct work_struct *work)
{
}

#endif
