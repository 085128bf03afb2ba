/* SPDX-License-Identifier: MIT */
/* brief.c - a few lengths, each of which has one place where it is remembered. */
#include "brief.h"

#include <stdatomic.h>

#include "config.h"
#include "sys.h"

#define LENGTHS 64U
#define IN_A_ROW 4U
#define EVERY 16U
#define FORGET_MS 1000

static struct length {
	atomic_size_t len;
	atomic_uint brief; /* such lives in a row */
	atomic_uint left;  /* alone, since then */
	_Atomic long long last;
} table[LENGTHS];

static struct length *place_of(size_t len)
{
	return &table[(len >> 12) * 2654435761U >> 7 & (LENGTHS - 1)];
}

static unsigned int load(const atomic_uint *n)
{
	return atomic_load_explicit(n, memory_order_relaxed);
}

static void store(atomic_uint *n, unsigned int value)
{
	atomic_store_explicit(n, value, memory_order_relaxed);
}

bool brief_expected(size_t len)
{
	struct length *l = place_of(len);
	unsigned int left;
	long long now;

	if (load(&l->brief) < IN_A_ROW ||
	    atomic_load_explicit(&l->len, memory_order_relaxed) != len)
		return false;
	now = sys_now_ms();
	if (now - atomic_exchange_explicit(&l->last, now, memory_order_relaxed) > FORGET_MS) {
		store(&l->brief, 0);
		return false;
	}
	left = load(&l->left) + 1;
	store(&l->left, left % EVERY);
	return left % EVERY != 0;
}

void brief_note(size_t len, long long ms)
{
	struct length *l = place_of(len);
	bool same = atomic_load_explicit(&l->len, memory_order_relaxed) == len;

	if (ms >= (long long)config.mmap_brief_ms) {
		if (same)
			store(&l->brief, 0);
		return;
	}
	if (!same) {
		atomic_store_explicit(&l->len, len, memory_order_relaxed);
		store(&l->brief, 0);
		store(&l->left, 0);
	}
	if (load(&l->brief) < IN_A_ROW)
		store(&l->brief, load(&l->brief) + 1);
	atomic_store_explicit(&l->last, sys_now_ms(), memory_order_relaxed);
}
