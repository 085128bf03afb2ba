/* SPDX-License-Identifier: MIT */
/* ancestors.c - see ancestors.h. */
#include "ancestors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int ancestors_open(void)
{
	int fd = memfd_create("ublkzc-rbd-addresses", MFD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static char *failed(char *text, int err, int *ret_err)
{
	free(text);
	*ret_err = err;
	return NULL;
}

char *ancestors_read(int fd, int *ret_err)
{
	struct stat st;
	char *text;
	ssize_t n;

	*ret_err = 0;
	if (fstat(fd, &st) < 0)
		return failed(NULL, -errno, ret_err);
	if (st.st_size > (off_t)ADDRESSES_MAX)
		return failed(NULL, -EFBIG, ret_err);
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text)
		return failed(NULL, -ENOMEM, ret_err);
	n = pread(fd, text, (size_t)st.st_size, 0);
	if (n != st.st_size)
		return failed(text, n < 0 ? -errno : -EIO, ret_err);
	return text;
}

int ancestors_add(int fd, const char *address)
{
	struct stat st;
	char line[256];
	int len = snprintf(line, sizeof(line), "%s\n", address);

	if (len >= (int)sizeof(line))
		return -ENAMETOOLONG;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size + len > (off_t)ADDRESSES_MAX)
		return -EFBIG;
	if (pwrite(fd, line, (size_t)len, st.st_size) != len)
		return -EIO;
	return 0;
}

/*
 * If this server dies in between there is one that knows nothing, and the lock is what is left;
 * which does as well, but takes longer.
 */
int ancestors_set(int fd, const char *address)
{
	if (ftruncate(fd, 0) < 0)
		return -errno;
	return ancestors_add(fd, address);
}
