/* SPDX-License-Identifier: MIT */
/* lock.c - see lock.h. */
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "state.h"

#define TRIES 1000

void lock_path(char *buf, size_t size, unsigned int device)
{
	snprintf(buf, size, STATE_DIR "/ublkb%u.lock", device);
}

static struct flock whole_file(void)
{
	return (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
}

/*
 * Whoever ended a device has removed its file, and with it what others wait for.  1: @fd is it,
 * 0: it is another, or none; or a negative errno.
 */
static int is_still_there(int fd, const char *path)
{
	struct stat ours, theirs;

	if (fstat(fd, &ours) < 0)
		return -errno;
	if (stat(path, &theirs) < 0)
		return errno == ENOENT ? 0 : -errno;
	return ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

static int open_or_create(const char *path, bool *ret_created)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	*ret_created = fd >= 0;
	if (fd < 0 && errno == EEXIST)
		fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd;
}

/* As is_still_there(); -EEXIST: somebody has it. */
static int lock_file(int fd, const char *path)
{
	struct flock lock = whole_file();

	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		return errno == EAGAIN || errno == EACCES ? -EEXIST : -errno;
	return is_still_there(fd, path);
}

int lock_take(unsigned int device, int *ret_fd)
{
	char path[64];
	int err = state_make_dir(STATE_DIR);

	if (err)
		return err;
	lock_path(path, sizeof(path), device);
	for (unsigned int tries = 0; tries < TRIES; tries++) {
		bool created;
		int fd = open_or_create(path, &created);

		err = -errno;
		if (fd < 0 && err == -ENOENT)
			continue; /* removed in between */
		if (fd < 0)
			return err;
		err = lock_file(fd, path);
		if (err > 0) {
			*ret_fd = fd;
			return 0;
		}
		if (err < 0 && err != -EEXIST && created)
			unlink(path);
		close(fd);
		if (err < 0)
			return err;
	}
	return err ? err : -EEXIST; /* it is taken and given back all the time */
}

int lock_open(unsigned int device)
{
	char path[64];
	int fd;

	lock_path(path, sizeof(path), device);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int lock_held(int fd)
{
	struct flock lock = whole_file();

	return fcntl(fd, F_OFD_GETLK, &lock) < 0 ? -errno : lock.l_type != F_UNLCK;
}

int lock_wait(int fd, int ms)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	int held;

	while ((held = lock_held(fd)) == 1 && ms > 0) {
		nanosleep(&pause, NULL);
		ms -= 10;
	}
	return held == 1 ? -ETIMEDOUT : held;
}
