/* SPDX-License-Identifier: MIT */
/* registry.c - see registry.h; release on publish meets acquire on view. */
#include "registry.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

int registry_publish(struct registry *r, unsigned int index, const struct buffer_view *view)
{
	if (index > UAPI_SHMEM_BUF_INDEX_MAX)
		return -ERANGE;
	if (atomic_load_explicit(&r->entries[index], memory_order_relaxed))
		return -EEXIST;
	atomic_store_explicit(&r->entries[index], view, memory_order_release);
	atomic_fetch_add_explicit(&r->nr, 1, memory_order_relaxed);
	return 0;
}

void registry_withdraw(struct registry *r, unsigned int index)
{
	if (index > UAPI_SHMEM_BUF_INDEX_MAX || !atomic_exchange(&r->entries[index], NULL))
		return;
	atomic_fetch_sub_explicit(&r->nr, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&r->withdrawals, 1, memory_order_release);
}

uint64_t registry_withdrawals(const struct registry *r)
{
	return atomic_load_explicit(&r->withdrawals, memory_order_acquire);
}

const struct buffer_view *registry_entry(const struct registry *r, unsigned int index)
{
	if (index > UAPI_SHMEM_BUF_INDEX_MAX)
		return NULL;
	return atomic_load(&r->entries[index]);
}

void registry_wait(const struct registry *r)
{
	while (atomic_load(&r->rescuers))
		sched_yield();
}

bool registry_view(const struct registry *r, unsigned int index, struct buffer_view *ret)
{
	const struct buffer_view *view = registry_entry(r, index);

	if (!view)
		return false;
	*ret = *view;
	return true;
}

uint8_t *registry_find(const struct registry *r, uint64_t addr, uint32_t len, bool into)
{
	uint32_t offset = uapi_shmem_offset(addr);
	struct buffer_view view;

	if (!registry_view(r, uapi_shmem_index(addr), &view))
		return NULL;
	if (offset > view.len || len > view.len - offset || (view.read_only && into))
		return NULL;
	return view.base + offset;
}

unsigned int registry_rescues(const struct registry *r)
{
	return atomic_load_explicit(&r->rescues, memory_order_acquire);
}

bool registry_any(const struct registry *r)
{
	return atomic_load_explicit(&r->nr, memory_order_relaxed) != 0;
}

void registry_asked(struct registry *r)
{
	atomic_fetch_add_explicit(&r->unanswered, 1, memory_order_relaxed);
}

void registry_answered(struct registry *r)
{
	atomic_fetch_sub_explicit(&r->unanswered, 1, memory_order_relaxed);
}

bool registry_unanswered(const struct registry *r)
{
	return atomic_load_explicit(&r->unanswered, memory_order_relaxed) != 0;
}

void registry_ring(const struct registry *r)
{
	uint64_t one = 1;

	if (r->alarm && write(r->alarm->fd, &one, sizeof(one)) < 0)
		return; /* it is full, so it is readable */
}

void registry_missed(const struct registry *r)
{
	if (r->alarm && atomic_load_explicit(&r->alarm->set, memory_order_relaxed) &&
	    atomic_exchange(&r->alarm->set, false))
		registry_ring(r);
}
