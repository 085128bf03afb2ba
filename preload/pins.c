/* SPDX-License-Identifier: MIT */
/* pins.c - what is open and mapped, as /proc/self shows it; see pins.h. */
#include "pins.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "procdir.h"
#include "sys.h"
#include "vmas.h"

static const char *count(int dir, const char *name, void *arg)
{
	(void)dir;
	(void)name;
	(*(unsigned int *)arg)++;
	return NULL;
}

static bool has_threads(void)
{
	unsigned int nr = 0;
	const char *none;

	return !procdir_each("task", count, &nr, &none) || nr > 1;
}

/* Anonymous inodes that have nothing to do with memory. */
static bool is_harmless(const char *link)
{
	static const char *const names[] = { "[eventfd]",  "[eventpoll]",  "[timerfd]",
					     "[signalfd]", "inotify",	   "[fanotify]",
					     "[pidfd]",	   "[userfaultfd]" };

	if (strncmp(link, "anon_inode:", 11) != 0)
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strncmp(link + 11, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

/* Memory devices (null, zero, random), terminals; others are drivers that may map pages. */
static bool is_plain_device(dev_t dev)
{
	unsigned int number = major(dev);

	return number == 1 || (number >= 2 && number <= 5) || (number >= 136 && number <= 143);
}

/* Those that are given memory once, and then read and write it by themselves. */
static bool is_socket_with_memory(int fd)
{
	int family = 0;
	socklen_t len = sizeof(family);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, (long)&family, (long)&len, 0);
	return family == AF_XDP || family == AF_RDS;
}

static const char *look_at_fd(int dir, const char *name, void *arg)
{
	const bool *threads = arg;
	char link[64];
	struct stat st;
	long flags;
	int fd = 0;
	long len;

	for (const char *digit = name; *digit; digit++)
		fd = fd * 10 + (*digit - '0');
	if (fd == dir || sys_fstat(fd, &st) < 0)
		return NULL;
	len = sys_call(SYS_readlinkat, dir, (long)name, (long)link, sizeof(link) - 1, 0, 0);
	link[len > 0 ? len : 0] = 0;
	if (!is_harmless(link))
		return strstr(link, "io_uring") ? "an io_uring" : "a driver's descriptor";
	if (S_ISCHR(st.st_mode) && !is_plain_device(st.st_rdev))
		return "a device other than a disk";
	if (S_ISSOCK(st.st_mode) && is_socket_with_memory(fd))
		return "an AF_XDP or AF_RDS socket";
	flags = sys_call(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);
	if (*threads && flags >= 0 && (flags & O_DIRECT) && !S_ISFIFO(st.st_mode))
		return "direct I/O of another thread";
	return NULL;
}

/* What holds pages without an open descriptor is still mapped. */
static const char *look_at_maps(void)
{
	static const char *const names[] = { "/[aio]", "io_uring", "vfio", "infiniband", "uverbs" };
	char buf[4096 + 1];
	const char *found = NULL;
	size_t keep = 0;
	int fd = vmas_open_proc("maps");
	long len;

	if (fd < 0)
		return "/proc cannot be read";
	while (!found && (len = sys_call(SYS_read, fd, (long)(buf + keep), (long)(4096 - keep), 0,
					 0, 0)) > 0) {
		buf[keep + (size_t)len] = 0;
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			if (strstr(buf, names[i]))
				found = i ? "an io_uring or a device that is mapped"
					  : "an aio context";
		/* A name may come in two reads. */
		keep = (size_t)len + keep > 16 ? 16 : (size_t)len + keep;
		memmove(buf, buf + strlen(buf) - keep, keep);
	}
	sys_close(fd);
	return found;
}

const char *pins_by_whom(void)
{
	bool threads = has_threads();
	const char *who;

	if (!procdir_each("fd", look_at_fd, &threads, &who))
		return "/proc cannot be read";
	return who ? who : look_at_maps();
}
