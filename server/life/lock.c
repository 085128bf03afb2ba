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

void lock_path(char *buf, size_t size, unsigned int device)
{
	snprintf(buf, size, STATE_DIR "/ublkb%u.lock", device);
}

static struct flock whole_file(void)
{
	return (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
}

/* Whoever ended a device has removed its file, and with it what others wait for. */
static bool is_still_there(int fd, const char *path)
{
	struct stat ours, theirs;

	return fstat(fd, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_ino == theirs.st_ino &&
	       ours.st_dev == theirs.st_dev;
}

int lock_take(unsigned int device, int *ret_fd)
{
	struct flock lock = whole_file();
	char path[64];
	int err;
	int fd;

	err = state_make_dir(STATE_DIR);
	if (err)
		return err;
	lock_path(path, sizeof(path), device);
	for (;;) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return -errno;
		if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
			break;
		if (is_still_there(fd, path)) {
			*ret_fd = fd;
			return 0;
		}
		close(fd);
	}
	err = errno == EAGAIN || errno == EACCES ? -EEXIST : -errno;
	close(fd);
	return err;
}

int lock_open(unsigned int device)
{
	char path[64];
	int fd;

	lock_path(path, sizeof(path), device);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
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
