/* SPDX-License-Identifier: MIT */
/*
 * blocks_altered.c - what a program did to the mapping of its blocks (guard pages, no
 * inheriting), made good when they are freed.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "blocks_internal.h"
#include "marks.h"
#include "sys.h"

bool blocks_are_altered(const struct arena *a, uint32_t at, uint32_t len)
{
	for (uint32_t word = at / 64; word <= (at + len - 1) / 64; word++) {
		uint64_t bits = atomic_load_explicit(&a->altered[word], memory_order_relaxed);

		if (word == at / 64)
			bits &= ~0ULL << at % 64;
		if (word == (at + len - 1) / 64)
			bits &= ~0ULL >> (63 - (at + len - 1) % 64);
		if (bits)
			return true;
	}
	return false;
}

static void set_altered(struct arena *a, uint32_t at, uint32_t len, bool value)
{
	for (uint32_t i = at; i < at + len; i++) {
		if (value)
			atomic_fetch_or(&a->altered[i / 64], 1ULL << i % 64);
		else
			atomic_fetch_and(&a->altered[i / 64], ~(1ULL << i % 64));
	}
}

void blocks_altered(const void *addr, size_t len)
{
	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];
		const char *start = addr;
		const char *end = start + len;

		if (a->state == ARENA_EMPTY || !a->granules || a->base >= end ||
		    a->base + a->len <= start)
			continue;
		start = start > a->base ? start : a->base;
		end = end < a->base + a->len ? end : a->base + a->len;
		set_altered(a, (uint32_t)((size_t)(start - a->base) / ARENA_GRANULE),
			    (uint32_t)((size_t)(end - start) / ARENA_GRANULE), true);
	}
}

/* What lay there instead is gone with the block; the file's pages nobody has seen since. */
static bool put_back(const struct arena *a, char *p, size_t bytes)
{
	return memfile_valid(&a->file) &&
	       !sys_is_error(sys_mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				      a->file.fd, (off_t)(a->offset + (uint64_t)(p - a->base))));
}

/* The run is to be used anew: readable, writable, inherited by children. */
bool blocks_restore(struct arena *a, uint32_t at, uint32_t len)
{
	char *p = a->base + (size_t)at * ARENA_GRANULE;
	size_t bytes = (size_t)len * ARENA_GRANULE;

	if (!blocks_are_altered(a, at, len))
		return true;
	if (a->taken_out && a->state == ARENA_SHARED && !put_back(a, p, bytes))
		return false;
	if (sys_call(SYS_mprotect, (long)p, (long)bytes, PROT_READ | PROT_WRITE, 0, 0, 0) < 0)
		return false;
	sys_madvise(p, bytes, MADV_DOFORK);
	if (!marks_clear(MARK_WIPE, p, bytes) || !marks_clear(MARK_DONTFORK, p, bytes))
		return false;
	set_altered(a, at, len, false);
	return true;
}
