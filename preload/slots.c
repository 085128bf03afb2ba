/* SPDX-License-Identifier: MIT */
/* slots.c - see slots.h. */
#include "slots.h"

/* Granules with room, by their names; 0: none. */
static uint32_t lists[SLOT_SHIFT_MAX + 1];

bool slot_fits(size_t size, size_t align, unsigned int *ret)
{
	size_t need = size > align ? size : align;

	*ret = SLOT_SHIFT_MIN;
	while (*ret <= SLOT_SHIFT_MAX && need > 1UL << *ret)
		(*ret)++;
	return *ret <= SLOT_SHIFT_MAX;
}

static struct granule *of(uint32_t name)
{
	return &granule_arena(name)->granules[granule_index(name)];
}

static void list_insert(uint32_t name)
{
	struct granule *g = of(name);

	g->listed = true;
	g->prev = 0;
	g->next = lists[g->slot_shift];
	if (g->next)
		of(g->next)->prev = name;
	lists[g->slot_shift] = name;
}

static void list_remove(uint32_t name)
{
	struct granule *g = of(name);

	if (!g->listed)
		return;
	g->listed = false;
	if (g->prev)
		of(g->prev)->next = g->next;
	else
		lists[g->slot_shift] = g->next;
	if (g->next)
		of(g->next)->prev = g->prev;
}

static uint8_t all_slots(unsigned int shift)
{
	return (uint8_t)((1U << (ARENA_GRANULE >> shift)) - 1);
}

void *slot_take(unsigned int shift)
{
	uint32_t name;
	struct granule *g;
	unsigned int slot;
	struct arena *a;

	/* What a fork has retired is not handed out. */
	while ((name = lists[shift]) && granule_arena(name)->state != ARENA_SHARED)
		list_remove(name);
	if (!name)
		return NULL;
	a = granule_arena(name);
	g = of(name);
	slot = (unsigned int)__builtin_ctz(~(unsigned int)g->taken);
	g->taken = (uint8_t)(g->taken | 1U << slot);
	if (g->taken == all_slots(shift))
		list_remove(name);
	return a->base + granule_index(name) * ARENA_GRANULE + ((size_t)slot << shift);
}

void slot_cut(struct arena *a, uint32_t at, unsigned int shift)
{
	struct granule *g = &a->granules[at];

	g->slot_shift = (uint8_t)shift;
	g->taken = g->dropped = 0;
	run_set_state(a, at, SLOTS);
	list_insert(granule_name(a, at));
}

bool slot_give_back(struct arena *a, uint32_t at, uint8_t bits)
{
	struct granule *g = &a->granules[at];

	g->taken = (uint8_t)(g->taken & ~bits);
	if (!g->taken) {
		list_remove(granule_name(a, at));
		run_set_state(a, at, USED);
		return true;
	}
	if (!g->listed && a->state == ARENA_SHARED)
		list_insert(granule_name(a, at));
	return false;
}

void slots_forget(void)
{
	for (unsigned int i = 0; i <= SLOT_SHIFT_MAX; i++)
		lists[i] = 0;
	for (unsigned int i = 0; i < arena_slots; i++)
		for (uint32_t at = 0; arenas[i].granules && at < arenas[i].high; at++)
			arenas[i].granules[at].listed = false;
}
