/* SPDX-License-Identifier: MIT */
/*
 * alloc_wrappers.c - the allocation functions the program calls.
 *
 * Each asks: is it a pointer of ours, or a size and alignment that a
 * direct-I/O buffer would have?  If not, the next function does it, with the
 * arguments as they came.  Corner cases (size 0, bad alignments, overflow) are
 * always the next function's, so they are exactly libc's.
 */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blocks.h"
#include "init.h"
#include "next.h"
#include "profile.h"
#include "shim.h"
#include "stats.h"

#define EXPORT __attribute__((visibility("default")))

/* Alignment and size from which on an aligned allocation looks like direct I/O. */
#define CAPTURE_ALIGN_MIN 512
#define CAPTURE_SIZE_MIN 512

atomic_bool probe_running;
_Alignas(64) char probe_area[64];
unsigned int probe_frees;

static inline bool probing(void)
{
	return __builtin_expect(atomic_load_explicit(&probe_running, memory_order_relaxed), 0);
}

static bool captures(void)
{
	if (!atomic_load_explicit(&shim.on, memory_order_relaxed))
		return false;
	if (shim_is_owner())
		return true;
	stat_add(STAT_FORKED_WITHOUT_US, 1);
	return false;
}

/* Allocation must not change errno unless it fails. */
static void *capture(size_t size, size_t align, bool zero)
{
	void *p = block_alloc_cached(size, align);
	int saved;

	if (p)
		return zero ? memset(p, 0, size) : p;
	saved = errno;
	p = block_alloc(size, align, zero);
	errno = saved;
	return p;
}

static void *capture_malloc(size_t size, bool zero)
{
	if (size < shim.malloc_min) {
		if (size >= PROFILE_MALLOC_MIN)
			stat_add_hot(STAT_PROFILE_OFF, 1);
		return NULL;
	}
	if (!captures())
		return NULL;
	return capture(size, ARENA_GRANULE, zero);
}

static void *capture_aligned(size_t align, size_t size)
{
	if (align < CAPTURE_ALIGN_MIN || size < CAPTURE_SIZE_MIN || (align & (align - 1)) ||
	    !captures())
		return NULL;
	return capture(size, align, false);
}

static void release(void *p)
{
	int saved;

	/* Behind our back the memory is the parent's too: leave it alone. */
	if (!shim_is_owner() || block_free_cached(p))
		return;
	saved = errno;
	block_free(p);
	errno = saved;
}

/*
 * Most calls are none of ours: then a compare or two, and a jump.  Before the
 * shim has started nothing is plain, and everything takes the long way.
 */
static inline bool plain_size(size_t size)
{
	return __builtin_expect(size < shim.plain_below, 1);
}

static inline bool plain_pointer(const void *p)
{
	return __builtin_expect(shim.plain_below && !arena_owns(p) && !next_pool_owns(p), 1);
}

EXPORT void *malloc(size_t size)
{
	void *p;

	if (plain_size(size))
		return next.malloc(size);
	if (probing())
		return probe_area;
	if (!next_ready())
		return next_pool_alloc(size, 16);
	p = capture_malloc(size, false);
	return p ? p : next.malloc(size);
}

EXPORT void *calloc(size_t nr, size_t size)
{
	size_t bytes;
	void *p = NULL;

	if (!__builtin_mul_overflow(nr, size, &bytes) && plain_size(bytes))
		return next.calloc(nr, size);
	if (!next_ready()) /* the pool is zero, and never given out twice */
		return __builtin_mul_overflow(nr, size, &bytes) ? NULL : next_pool_alloc(bytes, 16);
	if (!__builtin_mul_overflow(nr, size, &bytes))
		p = capture_malloc(bytes, true);
	return p ? p : next.calloc(nr, size);
}

EXPORT void free(void *p)
{
	if (plain_pointer(p)) {
		next.free(p);
		return;
	}
	if (probing())
		probe_frees++;
	if (arena_owns(p))
		release(p);
	else if (p && !next_pool_owns(p) && next_ready())
		next.free(p);
}

EXPORT void cfree(void *p);
EXPORT void cfree(void *p)
{
	free(p);
}

/* Move @p, which holds @have bytes, to @size bytes elsewhere. */
static void *move(void *p, size_t have, size_t size)
{
	void *to = malloc(size);

	if (!to)
		return NULL;
	memcpy(to, p, have < size ? have : size);
	free(p);
	return to;
}

EXPORT void *realloc(void *p, size_t size)
{
	void *to;

	if (p && plain_pointer(p))
		return next.realloc(p, size);
	if (!p)
		return malloc(size);
	if (next_pool_owns(p))
		return move(p, next_pool_size(p), size);
	if (!arena_owns(p))
		return next_ready() ? next.realloc(p, size) : NULL;
	if (!size) { /* as glibc does */
		free(p);
		return NULL;
	}
	if (shim_is_owner() && size >= CAPTURE_SIZE_MIN && block_resize(p, size))
		return p;
	/* A captured buffer that grows stays captured. */
	to = size >= CAPTURE_SIZE_MIN && captures() ? capture(size, ARENA_GRANULE, false) : NULL;
	if (!to)
		return move(p, block_size(p), size);
	memcpy(to, p, block_size(p) < size ? block_size(p) : size);
	free(p);
	return to;
}

EXPORT int posix_memalign(void **ret, size_t align, size_t size)
{
	void *p;

	if (probing()) {
		*ret = probe_area;
		return 0;
	}
	if (!next_ready())
		return ENOMEM;
	p = capture_aligned(align, size);
	if (!p)
		return next.posix_memalign(ret, align, size);
	*ret = p;
	return 0;
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
	void *p;

	if (!next_ready())
		return next_pool_alloc(size, align);
	p = capture_aligned(align, size);
	return p ? p : next.aligned_alloc(align, size);
}

EXPORT void *memalign(size_t align, size_t size)
{
	void *p;

	if (!next_ready())
		return next_pool_alloc(size, align);
	p = capture_aligned(align, size);
	return p ? p : next.memalign(align, size);
}

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

EXPORT void *valloc(size_t size)
{
	void *p = next_ready() ? capture_aligned(page_size(), size) : NULL;

	return p || !next.valloc ? p : next.valloc(size);
}

EXPORT void *pvalloc(size_t size)
{
	/* Blocks are whole pages already. */
	void *p = next_ready() ? capture_aligned(page_size(), size) : NULL;

	return p || !next.pvalloc ? p : next.pvalloc(size);
}

EXPORT size_t malloc_usable_size(void *p)
{
	if (arena_owns(p))
		return block_size(p);
	if (!p || next_pool_owns(p) || !next_ready())
		return 0;
	return next.malloc_usable_size(p);
}

EXPORT void free_sized(void *p, size_t size);
EXPORT void free_sized(void *p, size_t size)
{
	if (!arena_owns(p) && next_ready() && next.free_sized)
		next.free_sized(p, size);
	else
		free(p);
}

EXPORT void free_aligned_sized(void *p, size_t align, size_t size);
EXPORT void free_aligned_sized(void *p, size_t align, size_t size)
{
	if (!arena_owns(p) && next_ready() && next.free_aligned_sized)
		next.free_aligned_sized(p, align, size);
	else
		free(p);
}
