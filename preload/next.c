/* SPDX-License-Identifier: MIT */
/* next.c - see next.h. */
#include "next.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>

struct next next;

enum { UNRESOLVED, RESOLVING, RESOLVED };

static atomic_int state;
_Alignas(64) char next_pool[NEXT_POOL_SIZE];
static atomic_size_t pool_used; /* bytes */

#define RESOLVE(field, symbol) (next.field = (__typeof__(next.field))dlsym(RTLD_NEXT, symbol))

static void resolve(void)
{
	RESOLVE(malloc, "malloc");
	RESOLVE(calloc, "calloc");
	RESOLVE(realloc, "realloc");
	RESOLVE(free, "free");
	RESOLVE(posix_memalign, "posix_memalign");
	RESOLVE(aligned_alloc, "aligned_alloc");
	RESOLVE(memalign, "memalign");
	RESOLVE(valloc, "valloc");
	RESOLVE(pvalloc, "pvalloc");
	RESOLVE(malloc_usable_size, "malloc_usable_size");
	RESOLVE(free_sized, "free_sized");
	RESOLVE(free_aligned_sized, "free_aligned_sized");
	RESOLVE(open, "open");
	RESOLVE(open64, "open64");
	RESOLVE(openat, "openat");
	RESOLVE(openat64, "openat64");
	RESOLVE(open_2, "__open_2");
	RESOLVE(open64_2, "__open64_2");
	RESOLVE(openat_2, "__openat_2");
	RESOLVE(openat64_2, "__openat64_2");
	RESOLVE(fcntl, "fcntl");
	RESOLVE(fcntl64, "fcntl64");
	RESOLVE(mmap, "mmap");
	RESOLVE(munmap, "munmap");
	RESOLVE(mprotect, "mprotect");
	RESOLVE(pkey_mprotect, "pkey_mprotect");
	RESOLVE(madvise, "madvise");
	RESOLVE(mremap, "mremap");
	RESOLVE(mlock, "mlock");
	RESOLVE(mlock2, "mlock2");
	RESOLVE(munlock, "munlock");
	RESOLVE(mlockall, "mlockall");
	RESOLVE(munlockall, "munlockall");
	RESOLVE(shmat, "shmat");
	RESOLVE(shmdt, "shmdt");
	RESOLVE(setrlimit, "setrlimit");
	RESOLVE(setrlimit64, "setrlimit64");
	RESOLVE(prlimit, "prlimit");
	RESOLVE(prlimit64, "prlimit64");
}

bool next_resolved(void)
{
	return atomic_load_explicit(&state, memory_order_acquire) == RESOLVED;
}

bool next_ready(void)
{
	int expected = UNRESOLVED;
	int saved;

	if (next_resolved())
		return true;
	if (!atomic_compare_exchange_strong(&state, &expected, RESOLVING))
		return expected == RESOLVED;
	saved = errno;
	resolve();
	errno = saved;
	atomic_store_explicit(&state, RESOLVED, memory_order_release);
	return true;
}

void *next_pool_alloc(size_t size, size_t align)
{
	size_t need = (size + align + 63) & ~(size_t)63;
	size_t at;

	if (need < size || need > NEXT_POOL_SIZE)
		return NULL;
	at = atomic_fetch_add(&pool_used, need);
	if (at + need > NEXT_POOL_SIZE)
		return NULL;
	return (void *)(((uintptr_t)next_pool + at + align - 1) & ~(uintptr_t)(align - 1));
}

size_t next_pool_size(const void *p)
{
	return (size_t)(next_pool + NEXT_POOL_SIZE - (const char *)p);
}
