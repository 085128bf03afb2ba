/* SPDX-License-Identifier: MIT */
/* account.c - see account.h. */
#include "account.h"

#include <stddef.h>

static uint64_t own_room(const struct account *a)
{
	if (a->slices >= a->max_slices || a->bytes >= a->max_bytes)
		return 0;
	return a->max_bytes - a->bytes;
}

uint64_t account_room(const struct account *a)
{
	uint64_t room = UINT64_MAX;

	for (; a; a = a->parent)
		if (own_room(a) < room)
			room = own_room(a);
	return room;
}

const struct account *account_limit(const struct account *a)
{
	for (; a; a = a->parent)
		if (!own_room(a))
			return a;
	return NULL;
}

void account_charge(struct account *a, uint64_t bytes)
{
	for (; a; a = a->parent) {
		a->bytes += bytes;
		a->slices++;
	}
}

void account_refund(struct account *a, uint64_t bytes)
{
	for (; a; a = a->parent) {
		a->bytes -= bytes;
		a->slices--;
	}
}

/* The credit of one that has asked for nothing for long. */
#define PACE_FULL ((long long)PACE_BURST * PACE_SHARE)
_Static_assert(PACE_COST_MOST <= PACE_BURST, "nobody would ever have his turn");

static void earn(struct pace *p, long long now)
{
	p->credit += now - p->at;
	if (p->credit > PACE_FULL)
		p->credit = PACE_FULL;
	p->at = now;
}

static void begin(struct pace *p, long long cost)
{
	if (p->begun)
		return;
	*p = (struct pace){ .credit = PACE_FULL, .cost = cost, .begun = true };
}

bool account_take_turn(struct account *a, unsigned int nr, long long cost, long long now)
{
	for (struct account *p = a; p; p = p->parent) {
		if (!p->paced)
			continue;
		begin(&p->pace, cost);
		earn(&p->pace, now);
		if (p->pace.credit < p->pace.cost * PACE_SHARE)
			return false;
	}
	/* What is merged may cost more than there is: then the next waits longer. */
	for (struct account *p = a; p; p = p->parent)
		if (p->paced)
			p->pace.credit -= nr * p->pace.cost * PACE_SHARE;
	return true;
}

long long account_cost(long long cost, long long ms)
{
	/* Its end stops the device as well, later. */
	cost = (3 * cost + 2 * ms + 3) / 4;
	if (cost < PACE_COST_LEAST)
		return PACE_COST_LEAST;
	return cost < PACE_COST_MOST ? cost : PACE_COST_MOST;
}

void account_learn(struct account *a, long long ms)
{
	for (; a; a = a->parent)
		if (a->paced && a->pace.begun)
			a->pace.cost = account_cost(a->pace.cost, ms);
}

struct account *account_top(struct account *a)
{
	while (a && a->parent)
		a = a->parent;
	return a;
}

bool account_take_file(struct account *a)
{
	a = account_top(a);
	if (a && a->files >= a->max_files)
		return false;
	if (a)
		a->files++;
	return true;
}

void account_give_file(struct account *a)
{
	if (a)
		account_top(a)->files--;
}

void account_inherit_file(struct account *a)
{
	if (a)
		account_top(a)->files++;
}

bool account_is_idle(struct account *a, long long now)
{
	if (a->bytes || a->slices || a->files)
		return false;
	if (!a->paced || !a->pace.begun)
		return true;
	earn(&a->pace, now);
	return a->pace.credit == PACE_FULL;
}
