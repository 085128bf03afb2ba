/* SPDX-License-Identifier: MIT */
/* watch.c - see watch.h. */
#include "watch.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/sysmacros.h>

#include "common/blkdev.h"
#include "session.h"
#include "stats.h"
#include "sys.h"

/* st_dev that led to no ublk disk last time: most programs ask for one only. */
static _Atomic dev_t not_ublk;

enum place { ON_UBLK, NOT_UBLK, UNKNOWN };

/* On which ublk disks does @fd live? */
static enum place find_place(int fd, struct blkdev_ublk *found)
{
	struct statx stx = { 0 };
	bool disk;
	dev_t dev;
	int ret;

	found->nr = 0;
	if (sys_statx_cached(fd, STATX_TYPE, &stx) < 0)
		return UNKNOWN;
	disk = S_ISBLK(stx.stx_mode);
	dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	if (!disk && dev == atomic_load_explicit(&not_ublk, memory_order_relaxed))
		return NOT_UBLK;
	ret = blkdev_find_ublk_fd(fd, found);
	if (ret < 0 && ret != -ENOTBLK)
		return UNKNOWN;
	if (ret == 0 && found->nr)
		return ON_UBLK;
	/* A disk's number may be another disk's tomorrow, a mounted file system
	 * stays where it is. */
	if (!disk)
		atomic_store_explicit(&not_ublk, dev, memory_order_relaxed);
	return NOT_UBLK;
}

void watch_direct(int fd)
{
	struct blkdev_ublk found;
	int saved = errno;

	stat_add(STAT_DIRECT_OPENS, 1);
	switch (find_place(fd, &found)) {
	case UNKNOWN:
		stat_add(STAT_LOOKUP_FAILED, 1);
		break;
	case NOT_UBLK:
		stat_add(STAT_NOT_UBLK, 1);
		break;
	case ON_UBLK:
		for (unsigned int i = 0; i < found.nr; i++)
			session_arm(found.ids[i], fd);
	}
	errno = saved;
}

void watch_buffered(const char *path, int fd)
{
	struct blkdev_ublk found;
	int saved = errno;

	if (find_place(fd, &found) == ON_UBLK)
		stats_buffered_open(path);
	errno = saved;
}
