/* SPDX-License-Identifier: MIT */
/*
 * next.h - the functions behind ours: libc's, or those of the next preload.
 *
 * Resolved once, by dlsym(RTLD_NEXT), on the first call of any wrapper.  dlsym may
 * allocate, with the malloc and calloc that are not ours (rebind.h).
 */
#ifndef UBLKZC_PRELOAD_NEXT_H
#define UBLKZC_PRELOAD_NEXT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct rlimit;
struct rlimit64;

struct next {
	/* Those that are called most may be called at any time: they resolve. */
	void (*free)(void *);
	void *(*realloc)(void *, size_t);
	void *(*malloc)(size_t);
	void *(*calloc)(size_t, size_t);
	int (*posix_memalign)(void **, size_t, size_t);
	void *(*aligned_alloc)(size_t, size_t);
	void *(*memalign)(size_t, size_t);
	void *(*valloc)(size_t);
	void *(*pvalloc)(size_t);
	size_t (*malloc_usable_size)(void *);
	int (*open)(const char *, int, ...);
	int (*open64)(const char *, int, ...);
	int (*openat)(int, const char *, int, ...);
	int (*openat64)(int, const char *, int, ...);
	int (*open_2)(const char *, int);
	int (*open64_2)(const char *, int);
	int (*openat_2)(int, const char *, int);
	int (*openat64_2)(int, const char *, int);
	void *(*dlopen)(const char *, int);
	void *(*dlsym)(void *, const char *);
	int (*fcntl)(int, int, ...);
	int (*fcntl64)(int, int, ...);
	void *(*mmap)(void *, size_t, int, int, int, off_t);
	int (*munmap)(void *, size_t);
	int (*mprotect)(void *, size_t, int);
	int (*pkey_mprotect)(void *, size_t, int, int);
	int (*madvise)(void *, size_t, int);
	void *(*mremap)(void *, size_t, size_t, int, ...);
	int (*mlock)(const void *, size_t);
	int (*mlock2)(const void *, size_t, unsigned int);
	int (*munlock)(const void *, size_t);
	int (*mlockall)(int);
	int (*munlockall)(void);
	pid_t (*_Fork)(void); /* glibc 2.34 */
	int (*clone)(int (*)(void *), void *, int, void *, ...);
	int (*pthread_attr_setstack)(pthread_attr_t *, void *, size_t);
	int (*ioctl)(int, unsigned long, ...);
	void *(*shmat)(int, const void *, int);
	int (*shmdt)(const void *);
	int (*setrlimit)(int, const struct rlimit *);
	int (*setrlimit64)(int, const struct rlimit64 *);
	int (*prlimit)(pid_t, int, const struct rlimit *, struct rlimit *);
	int (*prctl)(int, ...);
	int (*prlimit64)(pid_t, int, const struct rlimit64 *, struct rlimit64 *);
};

/* Resolved when this returns true; false: being resolved right now, by the
 * calling thread further up, or by another. */
bool next_ready(void);

/*
 * The same, but resolves nothing.  For functions that allocators call while they
 * initialise themselves: resolving would allocate, and wait for them for ever.
 */
bool next_resolved(void);

/* Hidden, so that it is reached without a detour over the global offset table. */
extern struct next next __attribute__((visibility("hidden")));

#endif
