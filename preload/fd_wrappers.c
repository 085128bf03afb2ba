/* SPDX-License-Identifier: MIT */
/*
 * fd_wrappers.c - notice descriptors with O_DIRECT.
 *
 * The real function is called exactly once, with the arguments as they came
 * and no lock held (they are cancellation points).  Afterwards a descriptor
 * that has O_DIRECT is looked at.  Nothing depends on seeing every open: what
 * is missed is copied by the kernel.
 *
 * close, dup2 and close_range are not here: the session checks its own
 * descriptors before each use instead.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "next.h"
#include "shim.h"
#include "stats.h"
#include "watch.h"

#define EXPORT __attribute__((visibility("default")))

/* As glibc: the mode argument is there when a file may be created. */
#define NEEDS_MODE(flags) (((flags)&O_CREAT) || ((flags)&O_TMPFILE) == O_TMPFILE)

static int watched(const char *path, int fd, int flags)
{
	/* With O_PATH it is no access to the file, and the other flags mean nothing. */
	if (fd < 0 || (flags & O_PATH) || !shim.watch)
		return fd;
	if (flags & O_DIRECT)
		watch_direct(fd);
	else if (path && stats_in_file())
		watch_buffered(path, fd);
	return fd;
}

static mode_t take_mode(int flags, va_list args)
{
	return NEEDS_MODE(flags) ? va_arg(args, mode_t) : 0;
}

/* While the next functions are being resolved, or when there is none. */
static int raw_openat(int dir, const char *path, int flags, mode_t mode)
{
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;
	int fd;

	va_start(args, flags);
	mode = take_mode(flags, args);
	va_end(args);
	fd = next_ready() && next.open ? next.open(path, flags, mode)
				       : raw_openat(AT_FDCWD, path, flags, mode);
	return watched(path, fd, flags);
}

EXPORT int open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;
	int fd;

	va_start(args, flags);
	mode = take_mode(flags, args);
	va_end(args);
	fd = next_ready() && next.open64 ? next.open64(path, flags, mode)
					 : raw_openat(AT_FDCWD, path, flags | O_LARGEFILE, mode);
	return watched(path, fd, flags);
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;
	int fd;

	va_start(args, flags);
	mode = take_mode(flags, args);
	va_end(args);
	fd = next_ready() && next.openat ? next.openat(dir, path, flags, mode)
					 : raw_openat(dir, path, flags, mode);
	return watched(path, fd, flags);
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;
	int fd;

	va_start(args, flags);
	mode = take_mode(flags, args);
	va_end(args);
	fd = next_ready() && next.openat64 ? next.openat64(dir, path, flags, mode)
					   : raw_openat(dir, path, flags | O_LARGEFILE, mode);
	return watched(path, fd, flags);
}

/* What _FORTIFY_SOURCE makes of calls without a mode. */

EXPORT int __open_2(const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
	return watched(path,
		       next_ready() && next.open_2 ? next.open_2(path, flags)
						   : raw_openat(AT_FDCWD, path, flags, 0),
		       flags);
}

EXPORT int __open64_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags)
{
	return watched(path,
		       next_ready() && next.open64_2
			       ? next.open64_2(path, flags)
			       : raw_openat(AT_FDCWD, path, flags | O_LARGEFILE, 0),
		       flags);
}

EXPORT int __openat_2(int dir, const char *path, int flags);
EXPORT int __openat_2(int dir, const char *path, int flags)
{
	return watched(path,
		       next_ready() && next.openat_2 ? next.openat_2(dir, path, flags)
						     : raw_openat(dir, path, flags, 0),
		       flags);
}

EXPORT int __openat64_2(int dir, const char *path, int flags);
EXPORT int __openat64_2(int dir, const char *path, int flags)
{
	return watched(path,
		       next_ready() && next.openat64_2
			       ? next.openat64_2(dir, path, flags)
			       : raw_openat(dir, path, flags | O_LARGEFILE, 0),
		       flags);
}

/*
 * Every command takes one argument of at most pointer size, or none; passing
 * it on as a pointer is what libc's own implementation does.
 */
static int any_fcntl(int (*real)(int, int, ...), int fd, int cmd, void *arg)
{
	int ret = real ? real(fd, cmd, arg) : (int)syscall(SYS_fcntl, fd, cmd, arg);

	if (cmd == F_SETFL && ret == 0)
		watched(NULL, fd, (int)(long)arg);
	return ret;
}

EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list args;
	void *arg;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	return any_fcntl(next_ready() ? next.fcntl : NULL, fd, cmd, arg);
}

EXPORT int fcntl64(int fd, int cmd, ...);
EXPORT int fcntl64(int fd, int cmd, ...)
{
	va_list args;
	void *arg;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	return any_fcntl(next_ready() ? next.fcntl64 : NULL, fd, cmd, arg);
}
