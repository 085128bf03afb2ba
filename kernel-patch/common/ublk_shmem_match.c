// SPDX-License-Identifier: GPL-2.0
/*
 * Is a request in registered memory, and where?
 *
 * Most requests are physically in one piece, in one run of a buffer: one search
 * finds that out. Of the others the data is looked up from the beginning to the
 * end and cut into segments: pieces that are in one buffer, in the buffer's
 * order. One segment is what the io descriptor has room for. More of them are
 * written to the server's list as they are found.
 */
#include <linux/uaccess.h>
#include "ublk_shmem_priv.h"

struct ublk_shmem_match {
	struct ublk_shmem	*shmem;
	struct ublk_shmem_hold	*hold;
	const struct request	*req;
	u64			list_addr;
	unsigned int		max_segs;

	/* what was found last, and where the data must go on to belong to it */
	struct ublk_shmem_buf	*buf;
	const struct ublk_shmem_run *run;
	u64			next;

	unsigned int		nr_segs;
	struct ublkzc_shmem_seg	seg;	/* the last */
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
static bool ublk_shmem_find_run(struct ublk_shmem_match *m, unsigned long pfn)
{
	const struct ublk_shmem_run *run = m->run;

	if (run) {
		if (ublk_shmem_in_run(run, pfn))
			return true;
		run++;
		if (run < m->buf->runs + m->buf->nr_runs &&
		    ublk_shmem_in_run(run, pfn)) {
			m->run = run;
			return true;
		}
	}
	m->buf = ublk_shmem_find(m->shmem, pfn, &m->run);
	return m->buf;
}

static struct ublk_shmem_also_held *
ublk_shmem_also(const struct ublk_shmem *shmem, const struct request *req)
{
	unsigned int queue = req->mq_hctx->queue_num;

	return &shmem->also_held[queue * shmem->depth + req->tag];
}

/* One reference for each buffer, however many segments are in it. */
static bool ublk_shmem_hold_buf(struct ublk_shmem_match *m)
{
	struct ublk_shmem_hold *hold = m->hold;
	struct ublk_shmem_also_held *also;
	unsigned int i;

	if (hold->buf == m->buf)
		return true;
	if (!hold->buf) {
		if (!ublk_shmem_hold_live(m->buf))
			return false;
		hold->buf = m->buf;
		return true;
	}
	also = ublk_shmem_also(m->shmem, m->req);
	for (i = also->nr; i--;)
		if (also->indexes[i] == m->buf->index)
			return true;
	if (!ublk_shmem_hold_live(m->buf))
		return false;
	also->indexes[also->nr++] = m->buf->index;
	return true;
}

/*
 * Write the last segment to the server's list. The buffers that were found so
 * far are held, so RCU can be left for it.
 */
static bool ublk_shmem_list_seg(struct ublk_shmem_match *m)
{
	void __user *to = u64_to_user_ptr(m->list_addr +
					  (m->nr_segs - 1) * sizeof(m->seg));
	bool written;

	rcu_read_unlock();
	written = !copy_to_user(to, &m->seg, sizeof(m->seg));
	rcu_read_lock();
	return written;
}

static bool ublk_shmem_begin_seg(struct ublk_shmem_match *m, u64 offset)
{
	if (m->nr_segs == m->max_segs)
		return false;
	if (m->buf->read_only && req_op(m->req) == REQ_OP_READ)
		return false;
	if (!ublk_shmem_hold_buf(m))
		return false;
	if (m->nr_segs && !ublk_shmem_list_seg(m))
		return false;
	m->nr_segs++;
	m->seg = (struct ublkzc_shmem_seg) {
		.offset = offset,
		.index = m->buf->index,
	};
	return true;
}

static bool ublk_shmem_match_piece(struct ublk_shmem_match *m, u64 offset,
				   unsigned int bytes)
{
	if ((!m->nr_segs || m->seg.index != m->buf->index ||
	     offset != m->next) && !ublk_shmem_begin_seg(m, offset))
		return false;
	m->seg.len += bytes;
	m->next = offset + bytes;
	return true;
}

static unsigned long ublk_shmem_pfn(const struct bio_vec *bv)
{
	return page_to_pfn(bv->bv_page) + (bv->bv_offset >> PAGE_SHIFT);
}

static u64 ublk_shmem_offset(const struct ublk_shmem_run *run, unsigned long pfn,
			     unsigned int in_page)
{
	return ((u64)run->first_page + (pfn - run->pfn)) * PAGE_SIZE + in_page;
}

/* How much of the run is behind that. */
static u64 ublk_shmem_bytes(const struct ublk_shmem_run *run, unsigned long pfn,
			    unsigned int in_page)
{
	return (run->pfn + run->nr_pages - pfn) * PAGE_SIZE - in_page;
}

/* A segment of the request is physically in one piece, but may reach over several runs. */
static bool ublk_shmem_match_bvec(struct ublk_shmem_match *m,
				  const struct bio_vec *bv)
{
	unsigned int in_page = offset_in_page(bv->bv_offset);
	unsigned long pfn = ublk_shmem_pfn(bv);
	unsigned int left = bv->bv_len;

	while (left) {
		unsigned int bytes;

		if (!ublk_shmem_find_run(m, pfn))
			return false;
		bytes = min_t(u64, left, ublk_shmem_bytes(m->run, pfn, in_page));
		if (!ublk_shmem_match_piece(m, ublk_shmem_offset(m->run, pfn, in_page),
					    bytes))
			return false;
		left -= bytes;
		pfn = m->run->pfn + m->run->nr_pages;
		in_page = 0;
	}
	return true;
}

static bool ublk_shmem_match_all(struct ublk_shmem_match *m)
{
	struct req_iterator iter;
	struct bio_vec bv;

	rq_for_each_bvec(bv, m->req, iter)
		if (!ublk_shmem_match_bvec(m, &bv))
			return false;
	return m->nr_segs == 1 || (m->nr_segs && ublk_shmem_list_seg(m));
}

static void ublk_shmem_describe(struct ublksrv_io_desc *iod, unsigned int index,
				u64 offset)
{
	iod->op_flags |= UBLK_IO_F_SHMEM_ZC;
	iod->addr = (u64)index << 32 | offset;
}

/* The request begins in @run of @buf. */
static bool ublk_shmem_match_pieces(struct ublk_shmem *shmem,
				    struct ublk_shmem_hold *hold,
				    struct request *req,
				    struct ublksrv_io_desc *iod, u64 list_addr,
				    struct ublk_shmem_buf *buf,
				    const struct ublk_shmem_run *run)
{
	struct ublk_shmem_match m = {
		.shmem = shmem,
		.hold = hold,
		.req = req,
		.list_addr = list_addr,
		.max_segs = 1,
		.buf = buf,
		.run = run,
	};

	if (ublk_shmem_lists_segs(shmem) && list_addr)
		m.max_segs = UBLKZC_SHMEM_SEGS_MAX;
	if (!ublk_shmem_match_all(&m)) {
		ublk_shmem_put(shmem, hold, req);
		return false;
	}
	if (m.nr_segs == 1) {
		ublk_shmem_describe(iod, m.seg.index, m.seg.offset);
	} else {
		iod->op_flags |= UBLKZC_IO_F_SHMEM_SEGS;
		iod->addr = m.nr_segs;
	}
	return true;
}

static bool ublk_shmem_match_rcu(struct ublk_shmem *shmem,
				 struct ublk_shmem_hold *hold,
				 struct request *req,
				 struct ublksrv_io_desc *iod, u64 list_addr)
{
	const struct bio_vec bv = req_bvec(req);
	unsigned int in_page = offset_in_page(bv.bv_offset);
	unsigned long pfn = ublk_shmem_pfn(&bv);
	const struct ublk_shmem_run *run;
	struct ublk_shmem_buf *buf;

	buf = ublk_shmem_find(shmem, pfn, &run);
	if (!buf || (buf->read_only && req_op(req) == REQ_OP_READ))
		return false;
	if (bv.bv_len < blk_rq_bytes(req) ||
	    bv.bv_len > ublk_shmem_bytes(run, pfn, in_page))
		return ublk_shmem_match_pieces(shmem, hold, req, iod, list_addr,
					       buf, run);
	if (!ublk_shmem_hold_live(buf))
		return false;
	hold->buf = buf;
	ublk_shmem_describe(iod, buf->index,
			    ublk_shmem_offset(run, pfn, in_page));
	return true;
}

bool ublk_shmem_match(struct ublk_shmem *shmem, struct ublk_shmem_hold *hold,
		      struct request *req, struct ublksrv_io_desc *iod,
		      u64 list_addr)
{
	bool matched = false;

	if (!(shmem->flags & UBLK_F_SHMEM_ZC) || !req->bio ||
	    !ublk_shmem_can_match(req))
		return false;
	if (rcu_access_pointer(shmem->blocks)) {
		rcu_read_lock();
		matched = ublk_shmem_match_rcu(shmem, hold, req, iod, list_addr);
		rcu_read_unlock();
	}
	if (!matched && unlikely(READ_ONCE(shmem->hinting)))
		ublk_shmem_hint(shmem, req);
	return matched;
}

static void ublk_shmem_put_also(struct ublk_shmem *shmem,
				const struct request *req)
{
	struct ublk_shmem_also_held *also = ublk_shmem_also(shmem, req);
	struct ublk_shmem_buf *buf;

	/* a buffer keeps its index until its last reference is put */
	while (also->nr) {
		rcu_read_lock();
		buf = ublk_shmem_get_buf(shmem, also->indexes[--also->nr]);
		percpu_ref_put(&buf->ref);
		rcu_read_unlock();
	}
}

bool ublk_shmem_put(struct ublk_shmem *shmem, struct ublk_shmem_hold *hold,
		    const struct request *req)
{
	struct ublk_shmem_buf *first;

	if (!READ_ONCE(hold->buf))
		return false;
	if (ublk_shmem_lists_segs(shmem))
		ublk_shmem_put_also(shmem, req);
	/*
	 * A batch that could not be handed over is taken back by one task while
	 * the server, which can guess it, completes it by another. There are
	 * no lists in batches.
	 */
	first = xchg(&hold->buf, NULL);
	if (!first)
		return false;
	percpu_ref_put(&first->ref);
	return true;
}
