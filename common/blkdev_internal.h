/* SPDX-License-Identifier: MIT */
/*
 * blkdev_internal.h - the walk with another root folder, for unit tests.
 *
 * @root is a descriptor of the folder that holds sys/, proc/ and dev/.
 */
#ifndef UBLKZC_COMMON_BLKDEV_INTERNAL_H
#define UBLKZC_COMMON_BLKDEV_INTERNAL_H

#include <sys/types.h>

#include "blkdev.h"

int blkdev_find_ublk_at(int root, dev_t dev, struct blkdev_ublk *ret);
int blkdev_find_mount_at(int root, unsigned long long mount_id, struct blkdev_ublk *ret);

#endif
