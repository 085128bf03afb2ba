/* SPDX-License-Identifier: MIT */
/* next.c - see next.h. */
#include "next.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>

enum { UNRESOLVED, RESOLVING, RESOLVED };

static atomic_int state;

/* While it is being resolved: what dlsym gives back then is lost, a few bytes. */
static void first_free(void *p)
{
	if (next_ready() && next.free != first_free)
		next.free(p);
}

static void *first_realloc(void *p, size_t size)
{
	if (next_ready() && next.realloc != first_realloc)
		return next.realloc(p, size);
	errno = ENOMEM;
	return NULL;
}

_Alignas(64) struct next next = { .free = first_free, .realloc = first_realloc };

/* Never NULL in between: another thread may be calling it. */
#define RESOLVE(field, symbol)                                                                     \
	do {                                                                                       \
		void *found = dlsym(RTLD_NEXT, symbol);                                            \
		if (found)                                                                         \
			next.field = (__typeof__(next.field))found;                                \
	} while (0)

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
	RESOLVE(open, "open");
	RESOLVE(open64, "open64");
	RESOLVE(openat, "openat");
	RESOLVE(openat64, "openat64");
	RESOLVE(open_2, "__open_2");
	RESOLVE(open64_2, "__open64_2");
	RESOLVE(openat_2, "__openat_2");
	RESOLVE(openat64_2, "__openat64_2");
	RESOLVE(dlopen, "dlopen");
	RESOLVE(dlsym, "dlsym");
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
	RESOLVE(_Fork, "_Fork");
	RESOLVE(clone, "clone");
	RESOLVE(pthread_attr_setstack, "pthread_attr_setstack");
	RESOLVE(ioctl, "ioctl");
	RESOLVE(shmat, "shmat");
	RESOLVE(shmdt, "shmdt");
	RESOLVE(setrlimit, "setrlimit");
	RESOLVE(setrlimit64, "setrlimit64");
	RESOLVE(prlimit, "prlimit");
	RESOLVE(prlimit64, "prlimit64");
	RESOLVE(prctl, "prctl");
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
