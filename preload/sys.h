/* SPDX-License-Identifier: MIT */
/*
 * sys.h - the system calls the shim makes for itself.
 *
 * Never through libc's names: those are interposed, by us and perhaps by
 * others.  Each returns the result, or a negative errno, and leaves errno as
 * it was.
 */
#ifndef UBLKZC_PRELOAD_SYS_H
#define UBLKZC_PRELOAD_SYS_H

#include <signal.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

long sys_call(long nr, long a, long b, long c, long d, long e, long f);

int sys_close(int fd);
int sys_fstat(int fd, struct stat *st);
/* What the kernel knows of @fd now: a network or FUSE server is not asked. */
int sys_statx_cached(int fd, unsigned int mask, struct statx *stx);
pid_t sys_getpid(void);
int sys_madvise(void *addr, size_t len, int advice);
/* The mapping's address, or a negative errno (see sys_is_error). */
long sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
int sys_munmap(void *addr, size_t len);
int sys_poll_in(int fd, int timeout_ms); /* 1 readable or hung up, 0 timeout */
long long sys_now_ms(void);		 /* CLOCK_MONOTONIC */
void sys_sleep_us(long us);

/* For the calling thread: no handler runs until it is undone. */
void sys_block_signals(sigset_t *ret_before);
void sys_restore_signals(const sigset_t *before);

/*
 * Move @fd to a number that programs are unlikely to use, close-on-exec.  -EMFILE, and @fd
 * is closed, where there is none (RLIMIT_NOFILE of 44 and less): the low ones are the
 * program's, which may rely on getting the lowest.
 */
int sys_move_fd_high(int fd);

/* Does @fd still name the file with this identity?  Programs close what they
 * do not know, and then open something else under the number. */
int sys_fd_is(int fd, dev_t dev, ino_t ino);

static inline int sys_is_error(long ret)
{
	return ret < 0 && ret > -4096;
}

#endif
