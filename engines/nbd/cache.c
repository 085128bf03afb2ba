/* SPDX-License-Identifier: MIT */
/* cache.c - see cache.h. */
#include "cache.h"

void cache_wrote(struct cache *c)
{
	if (c->tracked)
		atomic_fetch_add(&c->written, 1);
}

uint64_t cache_covers(struct cache *c)
{
	return atomic_load(&c->written);
}

static void raise_to(_Atomic uint64_t *value, uint64_t to)
{
	uint64_t now = atomic_load(value);

	while (now < to && !atomic_compare_exchange_weak(value, &now, to))
		;
}

bool cache_flushed(struct cache *c, uint64_t covers)
{
	raise_to(&c->flushed, covers);
	return !atomic_exchange(&c->doubt, false);
}

bool cache_server_gone(struct cache *c, uint64_t written)
{
	if (!c->tracked || atomic_load(&c->flushed) >= written)
		return false;
	/* What is lost is told of once, however many connections the server had. */
	raise_to(&c->flushed, written);
	atomic_store(&c->doubt, true);
	return true;
}
