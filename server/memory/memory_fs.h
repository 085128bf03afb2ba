/* SPDX-License-Identifier: MIT */
/*
 * memory_fs.h - is a file system memory, without asking it?
 *
 * Even statfs(2) of a file on FUSE or NFS can wait for ever for whoever answers it, so a
 * program's mappings are judged by their device numbers only.
 *
 * Any thread.
 */
#ifndef UBLKZC_SERVER_MEMORY_MEMORY_FS_H
#define UBLKZC_SERVER_MEMORY_MEMORY_FS_H

#include <stdbool.h>
#include <sys/types.h>

/* File systems that one process may see mounted and that are looked at. */
#define MEMORY_FS_MAX 256U

/* The tmpfs and hugetlbfs that a process sees mounted: read once for a look at it. */
struct memory_fs {
	unsigned int nr;
	dev_t devices[MEMORY_FS_MAX];
};

void memory_fs_read(struct memory_fs *fs, pid_t pid);

/*
 * Is @dev tmpfs or hugetlbfs: one of @fs, or one of the kernel's
 * own (memfd, SysV and anonymous shared memory)?
 */
bool memory_fs_has(const struct memory_fs *fs, dev_t dev);

#endif
