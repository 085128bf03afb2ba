/* SPDX-License-Identifier: MIT */
/* shared.c - a few slots; a range is claimed and given up by its address. */
#include "shared.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

static struct noted {
	_Atomic uintptr_t start; /* 0: unused */
	_Atomic size_t len;
} noted[SHARED_NOTED_MAX];

static atomic_uint generation;

void shared_note(const void *addr, size_t len)
{
	atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
	for (unsigned int i = 0; i < SHARED_NOTED_MAX; i++) {
		uintptr_t unused = 0;

		if (!atomic_compare_exchange_strong(&noted[i].start, &unused, (uintptr_t)addr))
			continue;
		noted[i].len = len ? len : 1;
		return;
	}
}

void shared_gone(const void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;

	if (!shared_generation())
		return;
	for (unsigned int i = 0; i < SHARED_NOTED_MAX; i++) {
		uintptr_t at = noted[i].start;

		if (!at || at >= start + len || at + noted[i].len <= start)
			continue;
		atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
		/* What is left of it is found by the server. */
		if (at >= start)
			noted[i].start = 0;
	}
}

unsigned int shared_generation(void)
{
	return atomic_load_explicit(&generation, memory_order_relaxed);
}
