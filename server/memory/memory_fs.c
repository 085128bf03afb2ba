/* SPDX-License-Identifier: MIT */
/* memory_fs.c - see memory_fs.h; proc_pid_mountinfo(5), memfd_create(2). */
#include "memory_fs.h"

#include <linux/memfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Each has a file system of the kernel's own; huge pages one for each size. */
static const unsigned int kinds[] = {
	0,
	MFD_HUGE_64KB,
	MFD_HUGE_512KB,
	MFD_HUGE_1MB,
	MFD_HUGE_2MB,
	MFD_HUGE_8MB,
	MFD_HUGE_16MB,
	MFD_HUGE_32MB,
	MFD_HUGE_256MB,
	MFD_HUGE_512MB,
	MFD_HUGE_1GB,
	MFD_HUGE_2GB,
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* 0, which is no device, where the kernel has none. */
static dev_t device_of(unsigned int kind)
{
	int fd = memfd_create("ublkzc", MFD_CLOEXEC | (kind ? MFD_HUGETLB | kind : 0));
	struct stat st = { 0 };

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0)
		st.st_dev = 0;
	close(fd);
	return st.st_dev;
}

static dev_t own_devices[NR_KINDS];

static void find_own_devices(void)
{
	for (unsigned int i = 0; i < NR_KINDS; i++)
		own_devices[i] = device_of(kinds[i]);
}

static bool kernels_own(dev_t dev)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, find_own_devices);
	for (unsigned int i = 0; i < NR_KINDS; i++)
		if (own_devices[i] && own_devices[i] == dev)
			return true;
	return false;
}

/* "ID PARENT MAJ:MIN ROOT POINT OPTIONS [OPTIONAL...] - TYPE SOURCE OPTIONS" */
static bool is_memory(const char *line, dev_t *ret)
{
	unsigned int maj, min;
	const char *type = strstr(line, " - ");

	if (!type || sscanf(line, "%*d %*d %u:%u", &maj, &min) != 2)
		return false;
	*ret = makedev(maj, min);
	return strncmp(type + 3, "tmpfs ", 6) == 0 || strncmp(type + 3, "hugetlbfs ", 10) == 0;
}

void memory_fs_read(struct memory_fs *fs, pid_t pid)
{
	char path[40];
	char *line = NULL;
	size_t size = 0;
	FILE *mounts;

	fs->nr = 0;
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	mounts = fopen(path, "re");
	if (!mounts)
		return;
	while (fs->nr < MEMORY_FS_MAX && getline(&line, &size, mounts) > 0)
		fs->nr += is_memory(line, &fs->devices[fs->nr]);
	free(line);
	fclose(mounts);
}

bool memory_fs_has(const struct memory_fs *fs, dev_t dev)
{
	/* What is on a disk, and most mappings are, has a driver's number. */
	if (major(dev) != 0)
		return false;
	for (unsigned int i = 0; i < fs->nr; i++)
		if (fs->devices[i] == dev)
			return true;
	return kernels_own(dev);
}
