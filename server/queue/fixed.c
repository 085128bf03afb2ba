/* SPDX-License-Identifier: MIT */
/* fixed.c - see fixed.h. */
#include "fixed.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define INDICES (UAPI_SHMEM_BUF_INDEX_MAX + 1)

/* Of Linux 6.14, the first after 6.13 that tells. */
#define FEAT_RW_ATTR (1U << 16)

#define OUT 0		 /* not entered */
#define NEVER UINT16_MAX /* its pages cannot be pinned */

/*
 * Piece n begins at n << piece_shift and goes on by max_io beyond where n + 1 begins: so whatever
 * begins in it lies in it.
 */
struct piece {
	uint16_t entry; /* its number + 1, OUT or NEVER */
	uint64_t bytes; /* that have gone through it while OUT; else that are pinned */
};

/* What is known of a registered buffer; @view is the one that it had then. */
struct fixed_buffer {
	struct fixed_buffer *next;
	const struct buffer_view *view;
	unsigned int index;
	unsigned int nr;
	unsigned int nr_out; /* of the first pieces, while it is let go */
	struct piece pieces[];
};

static void free_tables(struct fixed *f)
{
	if (f->by_index)
		munmap(f->by_index, INDICES * sizeof(struct fixed_buffer *));
	free(f->unused);
	f->by_index = NULL;
	f->unused = NULL;
	f->ring = NULL;
}

static int allocate(struct fixed *f)
{
	void *map = mmap(NULL, INDICES * sizeof(struct fixed_buffer *), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	f->by_index = map == MAP_FAILED ? NULL : map;
	f->unused = calloc(FIXED_ENTRIES, sizeof(*f->unused));
	if (!f->by_index || !f->unused)
		return -ENOMEM;
	/* The lowest first. */
	while (f->nr_unused < FIXED_ENTRIES) {
		f->unused[f->nr_unused] = (uint16_t)(FIXED_ENTRIES - 1 - f->nr_unused);
		f->nr_unused++;
	}
	return 0;
}

int fixed_open(struct fixed *f, struct io_uring *ring, const struct registry *registry,
	       struct queue_counters *counters, uint32_t max_io)
{
	int ret;

	*f = (struct fixed){
		.ring = ring,
		.registry = registry,
		.counters = counters,
		.max_io = max_io,
		.let_go = UINT64_MAX,
	};
	while ((1U << f->piece_shift) < FIXED_PIECE || (1U << f->piece_shift) < max_io)
		f->piece_shift++;
	ret = allocate(f);
	if (!ret)
		ret = io_uring_register_buffers_sparse(ring, FIXED_ENTRIES);
	if (ret) {
		free_tables(f);
		return ret;
	}
	/* What a predecessor's ring had has gone with it. */
	atomic_store_explicit(&counters->fixed_bytes, 0, memory_order_relaxed);
	atomic_store(&f->let_go, registry_withdrawals(registry));
	return 0;
}

void fixed_close(struct fixed *f)
{
	while (f->first) {
		struct fixed_buffer *next = f->first->next;

		free(f->first);
		f->first = next;
	}
	free_tables(f);
	atomic_store_explicit(&f->let_go, UINT64_MAX, memory_order_release);
}

bool fixed_needs_plain_files(const struct fixed *f)
{
	return f->ring && !(f->ring->features & FEAT_RW_ATTR);
}

/* ---- entering ---- */

static struct fixed_buffer *new_buffer(struct fixed *f, unsigned int index,
				       const struct buffer_view *view)
{
	unsigned int nr = (unsigned int)((view->len - 1) >> f->piece_shift) + 1;
	struct fixed_buffer *fb = calloc(1, sizeof(*fb) + nr * sizeof(*fb->pieces));

	if (!fb)
		return NULL;
	fb->view = view;
	fb->index = index;
	fb->nr = nr;
	fb->next = f->first;
	f->first = fb;
	f->by_index[index] = fb;
	return fb;
}

/* NULL: it is not to be entered, or not until what had its index before has been let go. */
static struct fixed_buffer *buffer_of(struct fixed *f, unsigned int index)
{
	const struct buffer_view *view = registry_entry(f->registry, index);
	struct fixed_buffer *fb;

	if (!view || !view->pinnable)
		return NULL;
	fb = f->by_index[index];
	if (!fb)
		return new_buffer(f, index, view);
	return fb->view == view ? fb : NULL;
}

/* 0: out; 1: it is @iov. */
static int set_entry(struct fixed *f, unsigned int entry, const struct iovec *iov)
{
	__u64 no_tag = 0;
	int ret = io_uring_register_buffers_update_tag(f->ring, entry, iov, &no_tag, 1);

	return ret == 1 ? 0 : ret ? ret : -EIO;
}

static struct iovec extent_of(const struct fixed *f, const struct fixed_buffer *fb,
			      const struct piece *piece)
{
	uint64_t start = (uint64_t)(piece - fb->pieces) << f->piece_shift;
	uint64_t len = (1ULL << f->piece_shift) + f->max_io;

	if (len > fb->view->len - start)
		len = fb->view->len - start;
	return (struct iovec){ fb->view->base + start, len };
}

static void enter(struct fixed *f, struct piece *piece, const struct iovec *extent)
{
	uint16_t entry = f->unused[f->nr_unused - 1];
	int ret = set_entry(f, entry, extent);

	f->may_enter = false;
	piece->bytes = 0;
	if (!ret) {
		f->nr_unused--;
		piece->entry = entry + 1;
		piece->bytes = extent->iov_len;
		counter_add(&f->counters->fixed_bytes, piece->bytes);
		return;
	}
	if (ret == -EFAULT) {
		piece->entry = NEVER;
		return;
	}
	f->refused = true;
	counter_add(&f->counters->fixed_refused, 1);
}

int fixed_find(struct fixed *f, unsigned int index, const void *data, size_t len)
{
	struct fixed_buffer *fb = f->ring ? buffer_of(f, index) : NULL;
	struct iovec extent;
	struct piece *piece;

	if (!fb)
		return -1;
	piece = &fb->pieces[(size_t)((const uint8_t *)data - fb->view->base) >> f->piece_shift];
	if (piece->entry == OUT) {
		extent = extent_of(f, fb, piece);
		piece->bytes += len;
		if (piece->bytes >= extent.iov_len && f->may_enter && !f->refused && f->nr_unused)
			enter(f, piece, &extent);
	}
	return piece->entry == OUT || piece->entry == NEVER ? -1 : piece->entry - 1;
}

/* ---- letting go ---- */

/* False: @left is used up. */
static bool take_out(struct fixed *f, struct fixed_buffer *fb, unsigned int *left)
{
	const struct iovec nothing = { NULL, 0 };

	for (; fb->nr_out < fb->nr; fb->nr_out++) {
		struct piece *piece = &fb->pieces[fb->nr_out];

		if (piece->entry == OUT || piece->entry == NEVER)
			continue;
		/* If it fails the kernel has no memory for its own records: again. */
		if (!*left || set_entry(f, piece->entry - 1U, &nothing))
			return false;
		(*left)--;
		f->unused[f->nr_unused++] = (uint16_t)(piece->entry - 1);
		counter_add(&f->counters->fixed_bytes, 0 - piece->bytes);
		piece->entry = OUT;
		f->refused = false;
	}
	return true;
}

static bool take_out_withdrawn(struct fixed *f)
{
	struct fixed_buffer **link = &f->first;
	unsigned int left = FIXED_STEP;

	while (*link) {
		struct fixed_buffer *fb = *link;

		if (registry_entry(f->registry, fb->index) == fb->view) {
			link = &fb->next;
			continue;
		}
		if (!take_out(f, fb, &left))
			return false;
		*link = fb->next;
		f->by_index[fb->index] = NULL;
		free(fb);
	}
	return true;
}

bool fixed_wake(struct fixed *f)
{
	uint64_t withdrawals;

	if (!f->ring)
		return true;
	f->may_enter = true;
	/* Before the entries are looked at: what is withdrawn later is looked for again. */
	withdrawals = registry_withdrawals(f->registry);
	if (withdrawals == atomic_load_explicit(&f->let_go, memory_order_relaxed))
		return true;
	if (!take_out_withdrawn(f))
		return false;
	atomic_store_explicit(&f->let_go, withdrawals, memory_order_release);
	registry_ring(f->registry);
	return true;
}

uint64_t fixed_let_go(const struct fixed *f)
{
	return atomic_load_explicit(&f->let_go, memory_order_acquire);
}
