/* SPDX-License-Identifier: MIT */
/*
 * memory_fs.h - is a file system memory, without asking it?
 *
 * Even statfs(2) of a file on FUSE or NFS can wait for ever for whoever answers it, so a
 * program's mappings are judged by their device numbers only.
 */
#ifndef UBLKZC_SERVER_MEMORY_FS_H
#define UBLKZC_SERVER_MEMORY_FS_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Is @dev tmpfs or hugetlbfs: one that process @pid sees mounted, or one of the kernel's
 * own (memfd, SysV and anonymous shared memory)?  Control thread only.
 */
bool memory_fs(pid_t pid, dev_t dev);

#endif
