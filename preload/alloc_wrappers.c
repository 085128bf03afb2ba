/* SPDX-License-Identifier: MIT */
/*
 * alloc_wrappers.c - the allocation functions the program calls.
 *
 * Each asks: is it a pointer of ours, or a size and alignment that a
 * direct-I/O buffer would have?  If not, the next function does it, with the
 * arguments as they came.  Corner cases (size 0, bad alignments, overflow) are
 * always the next function's, so they are exactly libc's.
 *
 * malloc and calloc are not exported: only where large mallocs are captured are
 * the program's references to them pointed here (rebind.h).
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
#include "rebind.h"
#include "shim.h"
#include "stats.h"

#define EXPORT __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))
#define RARELY __attribute__((noinline, cold))

/* A return that is a jump: before it had the attribute, GCC made it one if it optimised. */
#if defined(__has_attribute) && __has_attribute(musttail)
#define JUMP __attribute__((musttail))
#define COMPILER_JUMPS 1
#elif defined(__OPTIMIZE__)
#define JUMP
#define COMPILER_JUMPS 1
#else
#define JUMP
#define COMPILER_JUMPS 0
#endif

/* Alignment and size from which on an aligned allocation looks like direct I/O. */
#define CAPTURE_ALIGN_MIN 512
#define CAPTURE_SIZE_MIN 512

/* What free looks at, without a detour over the global offset table. */
extern char *_Atomic arena_base HIDDEN;
extern _Atomic size_t arena_reserved HIDDEN;

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

static void *capture_aligned(size_t align, size_t size)
{
	if (align < CAPTURE_ALIGN_MIN || size < CAPTURE_SIZE_MIN || (align & (align - 1)) ||
	    !captures())
		return NULL;
	return capture(size, align, false);
}

/* ---- malloc and calloc, where they are ours ---- */

static void *capture_malloc(size_t size, bool zero)
{
	if (size < shim.malloc_min) {
		stat_add_hot(STAT_PROFILE_OFF, 1);
		return NULL;
	}
	return captures() ? capture(size, ARENA_GRANULE, zero) : NULL;
}

static inline bool is_large(size_t size)
{
	return __builtin_expect(size >= PROFILE_MALLOC_MIN || size >= shim.malloc_min, 0);
}

static void *tier_malloc(size_t size)
{
	void *p = is_large(size) ? capture_malloc(size, false) : NULL;

	return p ? p : next.malloc(size);
}

static void *tier_calloc(size_t nr, size_t size)
{
	size_t bytes;
	void *p = NULL;

	if (!__builtin_mul_overflow(nr, size, &bytes) && is_large(bytes))
		p = capture_malloc(bytes, true);
	return p ? p : next.calloc(nr, size);
}

/*
 * What dlopen brings has references too.  Who has opened a library asks for something of
 * it, and is prepared to wait for ld.so's locks; an mmap or open is not, and they may be
 * held by a thread that was stopped.  ld.so looks at who calls it, so these are jumps.
 */
static void *noticing_dlopen(const char *name, int flags)
{
	rebind_expect();
	JUMP return next.dlopen(name, flags);
}

static void *noticing_dlsym(void *handle, const char *symbol)
{
	rebind_new();
	JUMP return next.dlsym(handle, symbol);
}

static struct rebind references[] = { { "malloc", NULL, (void *)tier_malloc },
				      { "calloc", NULL, (void *)tier_calloc },
				      { "dlopen", NULL, (void *)noticing_dlopen },
				      { "dlsym", NULL, (void *)noticing_dlsym },
				      { 0 } };

void alloc_wrappers_take_malloc(void)
{
	references[0].from = (void *)next.malloc;
	references[1].from = (void *)next.calloc;
	references[2].from = (void *)next.dlopen;
	references[3].from = (void *)next.dlsym;
	if (!COMPILER_JUMPS)
		references[2].symbol = NULL;
	rebind_start(references);
}

/* ---- free ---- */

RARELY static void release(void *p)
{
	int saved;

	/* Behind our back the memory is the parent's too: leave it alone. */
	if (!shim_is_owner() || block_free_cached(p))
		return;
	/* Joining it with its neighbours may give memory back: not any more. */
	if (shim.sandboxed)
		return;
	saved = errno;
	block_free(p);
	errno = saved;
}

/* The one function that every program calls all the time: a compare, and a jump. */
EXPORT void free(void *p)
{
	if (__builtin_expect(arena_owns(p), 0))
		release(p);
	else
		next.free(p);
}

EXPORT void cfree(void *p);
EXPORT void cfree(void *p)
{
	free(p);
}

/* To say the size is a courtesy: free() does for any memory, and glibc before 2.43 has
 * nothing else to give it to. */
EXPORT void free_sized(void *p, size_t size);
EXPORT void free_sized(void *p, size_t size)
{
	(void)size;
	free(p);
}

EXPORT void free_aligned_sized(void *p, size_t align, size_t size);
EXPORT void free_aligned_sized(void *p, size_t align, size_t size)
{
	(void)align;
	(void)size;
	free(p);
}

/* ---- realloc ---- */

static void *capture_resized(size_t have, size_t size)
{
	void *p;
	int saved = errno;

	if (size < CAPTURE_SIZE_MIN || !captures())
		return NULL;
	p = size > have ? block_alloc_growing(size) : NULL;
	errno = saved;
	return p ? p : capture(size, ARENA_GRANULE, false);
}

RARELY static void *resize(void *p, size_t size)
{
	size_t have;
	void *to;

	if (!size) { /* as glibc does */
		free(p);
		return NULL;
	}
	have = block_size(p);
	/* In place while it fits, unless most of it would lie idle. */
	if (size <= have && size > have / 2)
		return p;
	if (shim_is_owner() && !shim.sandboxed && size >= CAPTURE_SIZE_MIN && block_resize(p, size))
		return p;
	to = capture_resized(have, size);
	if (!to)
		to = next.malloc(size);
	if (!to)
		return NULL;
	memcpy(to, p, have < size ? have : size);
	free(p);
	return to;
}

EXPORT void *realloc(void *p, size_t size)
{
	void *to;

	if (__builtin_expect(arena_owns(p), 0))
		return resize(p, size);
	if (!p && is_large(size) && shim.malloc_min != SIZE_MAX) {
		to = capture_malloc(size, false);
		if (to)
			return to;
	}
	return next.realloc(p, size);
}

EXPORT size_t malloc_usable_size(void *p)
{
	if (arena_owns(p))
		return block_size(p);
	return p && next_ready() ? next.malloc_usable_size(p) : 0;
}

/* ---- the aligned family ---- */

EXPORT int posix_memalign(void **ret, size_t align, size_t size)
{
	void *p;

	if (!next_ready())
		return ENOMEM;
	p = capture_aligned(align, size);
	if (!p)
		return next.posix_memalign(ret, align, size);
	*ret = p;
	return 0;
}

static void *none(void)
{
	errno = ENOMEM;
	return NULL;
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
	void *p;

	if (!next_ready())
		return none();
	p = capture_aligned(align, size);
	return p ? p : next.aligned_alloc(align, size);
}

EXPORT void *memalign(size_t align, size_t size)
{
	void *p;

	if (!next_ready())
		return none();
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

	if (p)
		return p;
	return next.valloc ? next.valloc(size) : none();
}

EXPORT void *pvalloc(size_t size)
{
	/* Blocks are whole pages already. */
	void *p = next_ready() ? capture_aligned(page_size(), size) : NULL;

	if (p)
		return p;
	return next.pvalloc ? next.pvalloc(size) : none();
}

/* ---- whose functions does the program reach? ---- */

/* Volatile, so that the calls are made and go where the linker says. */
static void (*volatile reach_free)(void *) = free;
static void *(*volatile reach_realloc)(void *, size_t) = realloc;
static int (*volatile reach_memalign)(void **, size_t, size_t) = posix_memalign;

#define PROBE_SIZE 64

static struct next behind; /* what the next functions are meanwhile */
static char probe_area[PROBE_SIZE];
static unsigned int probe_frees;
static void *probing; /* the thread */

static bool is_probe(size_t size)
{
	return size == PROBE_SIZE && probing == __builtin_thread_pointer();
}

static void note_free(void *p)
{
	probe_frees += !p && is_probe(PROBE_SIZE);
	behind.free(p);
}

static void *note_realloc(void *p, size_t size)
{
	return !p && is_probe(size) ? probe_area : behind.realloc(p, size);
}

static int note_memalign(void **ret, size_t align, size_t size)
{
	if (!is_probe(size))
		return behind.posix_memalign(ret, align, size);
	*ret = probe_area;
	return 0;
}

/*
 * Ours call the next functions, which for a moment know this thread: nothing is
 * allocated.  What a foreign function gives is its own, and stays with it.
 */
bool alloc_wrappers_reached(void)
{
	void *p = NULL;
	bool ours;

	behind = next;
	probing = __builtin_thread_pointer();
	next.free = note_free;
	next.realloc = note_realloc;
	next.posix_memalign = note_memalign;
	ours = reach_realloc(NULL, PROBE_SIZE) == probe_area;
	ours = reach_memalign(&p, 64, PROBE_SIZE) == 0 && p == probe_area && ours;
	reach_free(NULL);
	next.free = behind.free;
	next.realloc = behind.realloc;
	next.posix_memalign = behind.posix_memalign;
	probing = NULL;
	return ours && probe_frees;
}
