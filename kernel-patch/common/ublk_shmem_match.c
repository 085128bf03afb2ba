// SPDX-License-Identifier: GPL-2.0
/*
 * Is a request in registered memory, and where?
 */
#include <linux/uaccess.h>
#include "ublk_shmem_priv.h"

/*
 * State of one lookup: the run found last, and where the data must go on to
 * belong to the same segment.
 */
struct ublk_shmem_match {
	struct ublk_shmem	*shmem;
	struct ublk_shmem_run	*run;
	struct ublk_shmem_buf	*buf;	/* of the last segment */
	u64			start;	/* of the first, in its buffer */
	u64			next;
	unsigned int		nr_segs;
	unsigned int		max_segs;
	bool			reads;	/* data is written to the buffers */
	struct ublkzc_shmem_seg	*segs;	/* max_segs, or NULL: only count */
	struct ublk_shmem_held	*held;	/* with segs */
};

static inline bool ublk_shmem_can_match(const struct request *req)
{
	return req_op(req) == REQ_OP_READ || req_op(req) == REQ_OP_WRITE ||
		req_op(req) == REQ_OP_ZONE_APPEND;
}

/*
 * Most requests stay in the run that their first page is in, or go on in the
 * buffer's next one: there is one search however scattered the pages are.
 */
static struct ublk_shmem_run *ublk_shmem_find_run(struct ublk_shmem_match *m,
						  unsigned long pfn)
{
	struct ublk_shmem_run *run = m->run;

	if (run) {
		if (ublk_shmem_in_run(run, pfn))
			return run;
		run++;
		if (run < run[-1].buf->runs + run[-1].buf->nr_runs &&
		    ublk_shmem_in_run(run, pfn))
			return m->run = run;
	}
	return m->run = ublk_shmem_find(m->shmem, pfn);
}

/* Begin a segment, and hold its buffer when it is going to be listed. */
static bool ublk_shmem_match_seg(struct ublk_shmem_match *m,
				 struct ublk_shmem_buf *buf, u64 offset)
{
	if (m->nr_segs == m->max_segs || (m->reads && buf->read_only))
		return false;
	if (m->segs) {
		if (!percpu_ref_tryget_live(&buf->ref))
			return false;
		m->held->bufs[m->held->nr++] = buf;
		m->segs[m->nr_segs] = (struct ublkzc_shmem_seg) {
			.index = buf->index,
			.offset = offset,
		};
	}
	if (!m->nr_segs)
		m->start = offset;
	m->buf = buf;
	m->nr_segs++;
	return true;
}

static bool ublk_shmem_match_piece(struct ublk_shmem_match *m,
				   struct ublk_shmem_buf *buf, u64 offset,
				   unsigned int bytes)
{
	if ((buf != m->buf || offset != m->next) &&
	    !ublk_shmem_match_seg(m, buf, offset))
		return false;
	if (m->segs)
		m->segs[m->nr_segs - 1].len += bytes;
	m->next = offset + bytes;
	return true;
}

/* A segment is physically in one piece, but may reach over several runs. */
static bool ublk_shmem_match_bvec(struct ublk_shmem_match *m,
				  const struct bio_vec *bv)
{
	unsigned long pfn = page_to_pfn(bv->bv_page) +
		(bv->bv_offset >> PAGE_SHIFT);
	unsigned int in_page = offset_in_page(bv->bv_offset);
	unsigned int left = bv->bv_len;

	while (left) {
		struct ublk_shmem_run *run = ublk_shmem_find_run(m, pfn);
		unsigned long page;
		unsigned int bytes;
		u64 offset;

		if (!run)
			return false;
		page = pfn - run->pfn;
		offset = ((u64)run->first_page + page) * PAGE_SIZE + in_page;
		bytes = min_t(u64, left, (u64)(run->nr_pages - page) * PAGE_SIZE - in_page);
		if (!ublk_shmem_match_piece(m, run->buf, offset, bytes))
			return false;
		left -= bytes;
		pfn = run->pfn + run->nr_pages;
		in_page = 0;
	}
	return true;
}

static bool ublk_shmem_match_all(struct ublk_shmem_match *m,
				 const struct request *req)
{
	struct req_iterator iter;
	struct bio_vec bv;

	rq_for_each_bvec(bv, req, iter)
		if (!ublk_shmem_match_bvec(m, &bv))
			return false;
	return m->nr_segs;
}

static void ublk_shmem_put_held(struct ublk_shmem_held *held)
{
	while (held->nr)
		percpu_ref_put(&held->bufs[--held->nr]->ref);
	kfree(held);
}

/*
 * List the request's @nr_segs segments for the server, and hold their
 * buffers. The request has been looked up, but buffers may have come and gone
 * since. Whatever goes wrong, the request can still be copied.
 */
static bool ublk_shmem_list(struct ublk_shmem *shmem,
			    struct ublk_shmem_hold *hold, struct request *req,
			    struct ublksrv_io_desc *iod, u64 list_addr,
			    unsigned int nr_segs)
{
	struct ublk_shmem_match m = {
		.shmem = shmem,
		.max_segs = nr_segs,
		.reads = req_op(req) == REQ_OP_READ,
	};
	bool listed = false;

	m.held = kmalloc(struct_size(m.held, bufs, nr_segs),
			 GFP_NOWAIT | __GFP_NOWARN);
	if (!m.held)
		return false;
	m.held->nr = 0;
	m.segs = kcalloc(nr_segs, sizeof(*m.segs), GFP_NOWAIT | __GFP_NOWARN);
	if (m.segs) {
		rcu_read_lock();
		listed = ublk_shmem_match_all(&m, req);
		rcu_read_unlock();
	}
	listed = listed && !copy_to_user(u64_to_user_ptr(list_addr), m.segs,
					 m.nr_segs * sizeof(*m.segs));
	kfree(m.segs);
	if (!listed) {
		ublk_shmem_put_held(m.held);
		return false;
	}

	hold->held = m.held;
	iod->op_flags |= UBLKZC_IO_F_SHMEM_SEGS;
	iod->addr = m.nr_segs;
	return true;
}

bool ublk_shmem_match(struct ublk_shmem *shmem, struct ublk_shmem_hold *hold,
		      struct request *req, struct ublksrv_io_desc *iod,
		      u64 list_addr)
{
	struct ublk_shmem_match m = {
		.shmem = shmem,
		.max_segs = 1,
		.reads = req_op(req) == REQ_OP_READ,
	};
	bool matched;

	if (!(shmem->flags & UBLK_F_SHMEM_ZC) || !ublk_shmem_can_match(req) ||
	    xa_empty(&shmem->blocks))
		return false;
	if (ublk_shmem_lists_segs(shmem) && list_addr)
		m.max_segs = UBLKZC_SHMEM_SEGS_MAX;

	rcu_read_lock();
	matched = ublk_shmem_match_all(&m, req) &&
		(m.nr_segs > 1 || percpu_ref_tryget_live(&m.buf->ref));
	rcu_read_unlock();
	if (!matched)
		return false;
	if (m.nr_segs > 1)
		return ublk_shmem_list(shmem, hold, req, iod, list_addr,
				       m.nr_segs);

	hold->buf = m.buf;
	iod->op_flags |= UBLK_IO_F_SHMEM_ZC;
	iod->addr = (u64)m.buf->index << 32 | m.start;
	return true;
}

bool ublk_shmem_put(struct ublk_shmem *shmem, struct ublk_shmem_hold *hold,
		    const struct request *req)
{
	if (hold->buf) {
		percpu_ref_put(&hold->buf->ref);
		hold->buf = NULL;
		return true;
	}
	if (hold->held) {
		ublk_shmem_put_held(hold->held);
		hold->held = NULL;
		return true;
	}
	return false;
}
