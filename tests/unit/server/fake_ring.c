/* SPDX-License-Identifier: MIT */
/* fake_ring.c - see fake_ring.h. */
#include "fake_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/cmocka_all.h"

#define SQE_SIZE(flags) (sizeof(struct io_uring_sqe) << (((flags)&IORING_SETUP_SQE128) != 0))

struct fake_ring fake_ring;

static struct io_uring *the_ring;
static struct {
	unsigned int sq_head, sq_tail, sq_flags, sq_dropped;
	unsigned int cq_head, cq_tail, cq_flags, cq_overflow;
	unsigned int mask;
	unsigned int entries;
	unsigned int cq_mask;
	unsigned int cq_entries;
} shared;

int __wrap_io_uring_queue_init(unsigned int entries, struct io_uring *ring, unsigned int flags);
int __wrap_io_uring_register_files(struct io_uring *ring, const int *files, unsigned int nr);
int __wrap_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned int nr);
int __wrap___io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int submit,
			      unsigned int nr, sigset_t *set);
void __wrap_io_uring_queue_exit(struct io_uring *ring);
int __wrap_io_uring_submit_and_get_events(struct io_uring *ring);
int __wrap_io_uring_register_buffers_sparse(struct io_uring *ring, unsigned int nr);
int __wrap_io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned int at,
						const struct iovec *iov, const __u64 *tags,
						unsigned int nr);

int __wrap_io_uring_queue_init(unsigned int entries, struct io_uring *ring, unsigned int flags)
{
	unsigned int n = fake_ring.nr_inits++;
	unsigned int size = 1;

	fake_ring.init_flags[n % 4] = flags;
	if (n < 4 && fake_ring.init_errors[n])
		return fake_ring.init_errors[n];
	while (size < entries)
		size *= 2;
	memset(ring, 0, sizeof(*ring));
	memset(&shared, 0, sizeof(shared));
	shared.entries = size;
	shared.mask = size - 1;
	shared.cq_entries = 2 * size;
	shared.cq_mask = 2 * size - 1;
	ring->flags = flags;
	ring->ring_fd = -1;
	ring->features = fake_ring.features;
	ring->sq.khead = &shared.sq_head;
	ring->sq.ktail = &shared.sq_tail;
	ring->sq.kflags = &shared.sq_flags;
	ring->sq.kdropped = &shared.sq_dropped;
	ring->sq.kring_mask = &shared.mask;
	ring->sq.kring_entries = &shared.entries;
	ring->sq.ring_mask = shared.mask;
	ring->sq.ring_entries = shared.entries;
	ring->sq.sqes = calloc(size, SQE_SIZE(flags));
	ring->cq.khead = &shared.cq_head;
	ring->cq.ktail = &shared.cq_tail;
	ring->cq.kflags = &shared.cq_flags;
	ring->cq.koverflow = &shared.cq_overflow;
	ring->cq.kring_mask = &shared.cq_mask;
	ring->cq.kring_entries = &shared.cq_entries;
	ring->cq.ring_mask = shared.cq_mask;
	ring->cq.ring_entries = shared.cq_entries;
	ring->cq.cqes = calloc(shared.cq_entries, sizeof(*ring->cq.cqes));
	the_ring = ring;
	fake_ring.open = true;
	return 0;
}

int __wrap_io_uring_register_files(struct io_uring *ring, const int *files, unsigned int nr)
{
	(void)ring, (void)files, (void)nr;
	return fake_ring.register_error;
}

void fake_ring_post(uint64_t user_data, int res)
{
	struct io_uring_cqe *cqe = &the_ring->cq.cqes[shared.cq_tail & shared.cq_mask];

	assert_true(shared.cq_tail - shared.cq_head < shared.cq_entries);
	cqe->user_data = user_data;
	cqe->res = res;
	cqe->flags = 0;
	__atomic_store_n(&shared.cq_tail, shared.cq_tail + 1, __ATOMIC_RELEASE);
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
	int nr = 0;

	if (fake_ring.submit_error) {
		int ret = fake_ring.submit_error;

		fake_ring.submit_error = 0;
		return ret;
	}
	for (; ring->sq.sqe_head != ring->sq.sqe_tail; nr++) {
		fake_ring.submitted(
			(const struct io_uring_sqe *)((const char *)ring->sq.sqes +
						      (ring->sq.sqe_head & shared.mask) *
							      SQE_SIZE(ring->flags)));
		ring->sq.sqe_head++;
	}
	shared.sq_head = shared.sq_tail = ring->sq.sqe_tail;
	return nr;
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned int nr)
{
	int ret = __wrap_io_uring_submit(ring);

	(void)nr;
	if (ret >= 0 && shared.cq_head == shared.cq_tail)
		fake_ring.wait();
	return ret;
}

int __wrap_io_uring_submit_and_get_events(struct io_uring *ring)
{
	return __wrap_io_uring_submit(ring);
}

int __wrap_io_uring_register_buffers_sparse(struct io_uring *ring, unsigned int nr)
{
	(void)ring;
	assert_true(nr <= FAKE_RING_TABLE);
	if (!fake_ring.sparse_error)
		fake_ring.nr_table = nr;
	return fake_ring.sparse_error;
}

int __wrap_io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned int at,
						const struct iovec *iov, const __u64 *tags,
						unsigned int nr)
{
	(void)ring;
	assert_true(nr == 1 && at < fake_ring.nr_table && !*tags);
	assert_true(!iov->iov_base == !iov->iov_len && iov->iov_len <= 1U << 30);
	fake_ring.nr_updates++;
	if (iov->iov_base && fake_ring.update_error)
		return fake_ring.update_error;
	/* What is in use is taken out first, and what is taken out was in. */
	assert_true(!iov->iov_base == (fake_ring.table[at].iov_base != NULL));
	fake_ring.table[at] = *iov;
	fake_ring.nr_entered += iov->iov_base ? 1U : -1U;
	if (fake_ring.nr_entered > fake_ring.most_entered)
		fake_ring.most_entered = fake_ring.nr_entered;
	return 1;
}

/* Inline functions of liburing come here when they find nothing. */
int __wrap___io_uring_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int submit,
			      unsigned int nr, sigset_t *set)
{
	(void)submit, (void)set;
	*cqe = NULL;
	if (!nr)
		return -EAGAIN;
	if (fake_ring.wait_error) {
		int ret = fake_ring.wait_error;

		fake_ring.wait_error = 0;
		return ret;
	}
	if (shared.cq_head == shared.cq_tail)
		fake_ring.wait();
	if (shared.cq_head == shared.cq_tail)
		return -EINTR;
	*cqe = &ring->cq.cqes[shared.cq_head & shared.cq_mask];
	return 0;
}

void __wrap_io_uring_queue_exit(struct io_uring *ring)
{
	free(ring->sq.sqes);
	free(ring->cq.cqes);
	fake_ring.open = false;
}
