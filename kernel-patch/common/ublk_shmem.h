/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared memory zero copy: a device's registered buffers, and the requests in
 * them. This is all that the rest of the driver sees of it.
 */
#ifndef UBLK_SHMEM_H
#define UBLK_SHMEM_H

#include <linux/blk-mq.h>
#include <linux/idr.h>
#include <linux/llist.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <uapi/linux/ublk_cmd.h>
#include "ublkzc_cmd.h"

/* features of a device that are served here */
#define UBLK_SHMEM_F_ALL \
	(UBLK_F_SHMEM_ZC | UBLKZC_F_SHMEM_LIST | UBLKZC_F_SHMEM_SEGS | \
	 ublk_shmem_foreign_features())

/* those that a parameter of the module switches off */
u64 ublk_shmem_foreign_features(void);

struct ublk_shmem_buf;
struct ublk_shmem_hints;

/* Indexes of buffers that a scattered request holds besides its first. */
struct ublk_shmem_also_held {
	u16			nr;
	u16			indexes[UBLKZC_SHMEM_SEGS_MAX - 1];
};

/* The registered buffers of a device, in struct ublk_device. */
struct ublk_shmem {
	u64			flags;		/* the device's */

	/*
	 * Protects the set of buffers. Not the device's mutex: that one is held
	 * over waits for requests (stop, recovery), and registering must
	 * neither wait for those nor be waited for.
	 */
	struct mutex		mutex;
	struct ida		indexes;
	struct ublk_shmem_table __rcu *bufs;	/* by index */
	struct ublk_shmem_dir __rcu *blocks;	/* by page frame number >> shift */

	/* buffers whose last request is done, until they are unpinned */
	struct llist_head	drained;
	struct work_struct	reap_work;

	/* for each tag of each queue, when scattered requests are listed */
	struct ublk_shmem_also_held *also_held;
	unsigned int		depth;		/* of a queue */

	/* foreign buffers whose memory is gone, until they are killed */
	struct llist_head	lost;
	struct work_struct	lost_work;
	/*
	 * What the server's mappings need is not under the mutex, which is held
	 * over allocations: they could wait for a request whose server waits
	 * for a page of such a mapping.
	 */
	spinlock_t		index_lock;	/* a buffer is there or not */
	struct mutex		mapping_mutex;
	struct address_space	*mapping;	/* while the char device is open */

	/* where requests were that did not match; NULL: never asked for */
	struct ublk_shmem_hints __rcu *hints;
	bool			hinting;
};

/*
 * What one request holds, zeroed once; whoever owns the request owns it. No
 * more than fits into a cache line with the rest of what 7.x has for each tag.
 */
struct ublk_shmem_hold {
	struct ublk_shmem_buf	*buf;		/* the first, or NULL */
};

/*
 * When the device's flags, queues and depth are settled. -EINVAL: they do not
 * go together.
 */
int ublk_shmem_init(struct ublk_shmem *shmem,
		    const struct ublksrv_ctrl_dev_info *info);

/* There are no requests and no commands any more. */
void ublk_shmem_exit(struct ublk_shmem *shmem);

/*
 * The control commands. @cmd is a copy that nobody else changes, and for an
 * unprivileged device points behind the path.
 */
int ublk_shmem_reg_buf(struct ublk_shmem *shmem,
		       const struct ublksrv_ctrl_cmd *cmd);
int ublk_shmem_unreg_buf(struct ublk_shmem *shmem,
			 const struct ublksrv_ctrl_cmd *cmd);
int ublk_shmem_list_bufs(struct ublk_shmem *shmem,
			 const struct ublksrv_ctrl_cmd *cmd);
int ublk_shmem_reg_foreign(struct ublk_shmem *shmem,
			   const struct ublksrv_ctrl_cmd *cmd);
int ublk_shmem_take_hints(struct ublk_shmem *shmem,
			  const struct ublksrv_ctrl_cmd *cmd);

/* Is it for foreign buffers that the char device is mapped there? */
static inline bool ublk_shmem_maps_foreign(const struct vm_area_struct *vma)
{
	return vma->vm_pgoff >= UBLKZC_FOREIGN_OFFSET >> PAGE_SHIFT;
}

int ublk_shmem_mmap(struct ublk_shmem *shmem, struct vm_area_struct *vma);

/* The char device is closed for the last time, so nothing is mapped any more. */
void ublk_shmem_closed(struct ublk_shmem *shmem);

/*
 * Find the one buffer that all of the request's data is in, in one piece, or
 * all of those that it is scattered over; describe it in @iod; and hold the
 * buffers until ublk_shmem_put(). @list_addr is where the server, whose task
 * this is, wants the list of a scattered request, or 0. False: the request
 * takes its normal way.
 */
bool ublk_shmem_match(struct ublk_shmem *shmem, struct ublk_shmem_hold *hold,
		      struct request *req, struct ublksrv_io_desc *iod,
		      u64 list_addr);

/*
 * The server is done with the request's data, or never got it, or the request
 * is going to be looked up anew. Was the data in place? From any context.
 */
bool ublk_shmem_put(struct ublk_shmem *shmem, struct ublk_shmem_hold *hold,
		    const struct request *req);

void ublk_shmem_note_issuer(const struct request *req);

/* A request is queued, most often by who issues it. */
static inline void ublk_shmem_queued(struct ublk_shmem *shmem,
				     const struct request *req)
{
	if (unlikely(READ_ONCE(shmem->hinting)))
		ublk_shmem_note_issuer(req);
}

static inline bool ublk_shmem_lists_segs(const struct ublk_shmem *shmem)
{
	return shmem->flags & UBLKZC_F_SHMEM_SEGS;
}

/*
 * How much of a request in place is done when the server says @bytes. The rest
 * is issued again, so it must be whole blocks, or there is no progress. 0: not
 * even one is.
 */
static inline unsigned int ublk_shmem_whole_blocks(const struct request *req,
						   unsigned int bytes)
{
	if (bytes >= blk_rq_bytes(req))
		return blk_rq_bytes(req);
	return round_down(bytes, queue_logical_block_size(req->q));
}

#endif
