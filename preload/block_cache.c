/* SPDX-License-Identifier: MIT */
/* block_cache.c - slots that are exchanged atomically. */
#include "block_cache.h"

#include <stdatomic.h>
#include <stddef.h>

#include "shard.h"

typedef _Atomic(void *) slot_t;

static _Alignas(64) slot_t slots[1U << CACHE_SHARD_BITS][CACHE_LEN_MAX + 1][CACHE_DEPTH];

static slot_t *my_slots(uint32_t len)
{
	return slots[thread_shard(CACHE_SHARD_BITS)][len];
}

void *cache_take(uint32_t len)
{
	slot_t *mine = my_slots(len);

	for (unsigned int i = 0; i < CACHE_DEPTH; i++) {
		void *p = NULL;

		/* A look first: exchanging costs more than looking. */
		if (atomic_load_explicit(&mine[i], memory_order_relaxed))
			p = atomic_exchange_explicit(&mine[i], NULL, memory_order_acquire);
		if (p)
			return p;
	}
	return NULL;
}

bool cache_give(void *p, uint32_t len)
{
	slot_t *mine = my_slots(len);

	for (unsigned int i = 0; i < CACHE_DEPTH; i++) {
		void *empty = NULL;

		if (!atomic_load_explicit(&mine[i], memory_order_relaxed) &&
		    atomic_compare_exchange_strong_explicit(
			    &mine[i], &empty, p, memory_order_release, memory_order_relaxed))
			return true;
	}
	return false;
}

void cache_drain(void (*each)(void *p))
{
	for (unsigned int shard = 0; shard < 1U << CACHE_SHARD_BITS; shard++)
		for (unsigned int i = 0; i < (CACHE_LEN_MAX + 1) * CACHE_DEPTH; i++) {
			slot_t *slot = &slots[shard][0][0] + i;
			void *p = atomic_load_explicit(slot, memory_order_relaxed);

			if (p)
				p = atomic_exchange_explicit(slot, NULL, memory_order_acquire);
			if (p)
				each(p);
		}
}
