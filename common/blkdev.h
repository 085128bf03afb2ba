/* SPDX-License-Identifier: MIT */
/*
 * blkdev.h - which ublk disks stand behind a device number.
 *
 * A block device may be a ublk disk, a partition of one, or device-mapper or
 * md on top of some; a file lives on a file system on any of these.  Both
 * sides ask the same question: the shim to find the server of an opened
 * descriptor, the server to judge a proof of access.
 *
 * Answers come from sysfs (/sys/dev/block/MAJ:MIN, its "slaves" and, for a
 * partition, its parent) and, for file systems whose st_dev is no block
 * device (btrfs), from /proc/self/mountinfo.  No heap, no stdio, raw system
 * calls, no descriptor kept: usable inside a preloaded library.  Bounded: at
 * most BLKDEV_DEPTH_MAX levels and BLKDEV_NODES_MAX devices are visited.
 */
#ifndef UBLKZC_COMMON_BLKDEV_H
#define UBLKZC_COMMON_BLKDEV_H

#include <sys/types.h>

#define BLKDEV_UBLK_MAX 8   /* ublk disks one answer can name */
#define BLKDEV_DEPTH_MAX 8  /* levels of stacking followed */
#define BLKDEV_NODES_MAX 64 /* devices visited for one answer */

/* ids: N of each /dev/ublkbN, in the order found, no duplicates */
struct blkdev_ublk {
	unsigned int nr;
	unsigned int ids[BLKDEV_UBLK_MAX];
};

/*
 * Find the ublk disks behind block device @dev.  Returns 0 with @ret filled
 * (nr 0: none, an ordinary disk), or a negative errno when sysfs could not
 * be read.  Any thread.
 */
int blkdev_find_ublk(dev_t dev, struct blkdev_ublk *ret);

/*
 * The same for an open descriptor: a block device's st_rdev, or a regular
 * file's or directory's st_dev.  -ENOTBLK for any other kind of file.
 */
int blkdev_find_ublk_fd(int fd, struct blkdev_ublk *ret);

#endif
