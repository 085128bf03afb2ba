/* SPDX-License-Identifier: MIT */
/* sys.c - see sys.h. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * Descriptors are moved to this number or above if the limit allows.  The kernel's
 * table begins with 64; growing it makes a process with threads wait for
 * milliseconds (expand_fdtable in fs/file.c), so there the number is below.
 */
#define HIGH_FD 512
#define HIGH_FD_THREADS 44

long sys_call(long nr, long a, long b, long c, long d, long e, long f)
{
	int saved = errno;
	long ret = syscall(nr, a, b, c, d, e, f);

	if (ret == -1)
		ret = -errno;
	errno = saved;
	return ret;
}

int sys_close(int fd)
{
	return (int)sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

int sys_fstat(int fd, struct stat *st)
{
	return (int)sys_call(SYS_fstat, fd, (long)st, 0, 0, 0, 0);
}

int sys_statx_cached(int fd, unsigned int mask, struct statx *stx)
{
	return (int)sys_call(SYS_statx, fd, (long)"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask,
			     (long)stx, 0);
}

pid_t sys_getpid(void)
{
	return (pid_t)sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

int sys_madvise(void *addr, size_t len, int advice)
{
	return (int)sys_call(SYS_madvise, (long)addr, (long)len, advice, 0, 0, 0);
}

long sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return sys_call(SYS_mmap, (long)addr, (long)len, prot, flags, fd, offset);
}

int sys_munmap(void *addr, size_t len)
{
	return (int)sys_call(SYS_munmap, (long)addr, (long)len, 0, 0, 0, 0);
}

int sys_poll_in(int fd, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct timespec ts = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };

	return (int)sys_call(SYS_ppoll, (long)&p, 1, (long)&ts, 0, 0, 0);
}

long long sys_now_ms(void)
{
	struct timespec ts = { 0 };

	sys_call(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&ts, 0, 0, 0, 0);
	return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void sys_sleep_us(long us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	sys_call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&ts, 0, 0, 0);
}

#define KERNEL_SIGSET 8 /* bytes; libc's is longer */

void sys_block_signals(sigset_t *ret_before)
{
	sigset_t all;

	memset(&all, 0xff, sizeof(all));
	sys_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)ret_before, KERNEL_SIGSET, 0,
		 0);
}

void sys_restore_signals(const sigset_t *before)
{
	sys_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)before, 0, KERNEL_SIGSET, 0, 0);
}

int sys_move_fd_high(int fd)
{
	long high = -EMFILE;

	if (__libc_single_threaded)
		high = sys_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, HIGH_FD, 0, 0, 0);
	if (high < 0)
		high = sys_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, HIGH_FD_THREADS, 0, 0, 0);
	sys_close(fd);
	return high < 0 ? -EMFILE : (int)high;
}

int sys_fd_is(int fd, dev_t dev, ino_t ino)
{
	struct stat st;

	return fd >= 0 && sys_fstat(fd, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}
