/* SPDX-License-Identifier: MIT */
/*
 * backing.c - see backing.h.
 *
 * Whose the storage is, is asked of the kernel: a block device that is opened with O_EXCL is
 * nobody else's, neither a file system's, nor swap's, nor a member's of a device above it,
 * nor another server's.  Successors have the same open file, and so the claim.  Regular
 * files cannot be claimed like that; servers lock them against each other (flock).
 */
#include "backing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Says it, with what @err is. */
__attribute__((format(printf, 2, 3))) static int fail(int err, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	ublkzc_log(UBLKZC_LOG_ERROR, "%s: %s", text, strerror(-err));
	return err;
}

int backing_check(const struct ublkzc_target *target, char *why, size_t size)
{
	static const char *const names[] = { "buffered", "force" };

	for (unsigned int i = 0; i < 2; i++) {
		if (ublkzc_setting_yes(target, names[i]) >= 0)
			continue;
		snprintf(why, size, "-o %s=%s: wants yes or no", names[i],
			 ublkzc_setting(target, names[i]));
		return -EINVAL;
	}
	return 0;
}

/* What direct I/O needs where the kernel does not say (before 6.1, or on tmpfs). */
#define DIRECT_ALIGN_DEFAULT 4096U

static int wrong_kind(const struct ublkzc_target *target, mode_t mode)
{
	return fail(S_ISDIR(mode) ? -EISDIR : -ENOTBLK,
		    "%s is neither a regular file nor a block device", target->path);
}

/*
 * What the path names, and not yet opened: to open a pipe would wait for its other end, and
 * a block device that somebody has is not to be opened in any other way than with O_EXCL.
 */
static int find_backing(const struct ublkzc_target *target, struct stat *ret_st)
{
	int fd = open(target->path, O_PATH | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return fail(-errno, "%s", target->path);
	if (fstat(fd, ret_st) < 0)
		ret = fail(-errno, "%s", target->path);
	else if (!S_ISREG(ret_st->st_mode) && !S_ISBLK(ret_st->st_mode))
		ret = wrong_kind(target, ret_st->st_mode);
	else
		return fd;
	close(fd);
	return ret;
}

static int open_found(int found, int flags)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", found);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Read-write with direct I/O if possible, then less of both. */
static int open_directly(const struct ublkzc_target *target, int found, int flags, bool *ret_direct)
{
	int fd;

	*ret_direct = ublkzc_setting_yes(target, "buffered") != 1;
	fd = open_found(found, flags | (*ret_direct ? O_DIRECT : 0));
	if (fd == -EINVAL && *ret_direct) {
		*ret_direct = false;
		fd = open_found(found, flags);
	}
	return fd;
}

static int open_block_device(const struct ublkzc_target *target, int found, int flags, dev_t dev,
			     bool *ret_direct)
{
	int fd = open_directly(target, found, flags | O_EXCL, ret_direct);
	char holders[256];

	if (fd != -EBUSY)
		return fd;
	ublkzc_who_has(dev, holders, sizeof(holders));
	if (ublkzc_setting_yes(target, "force") != 1)
		return fail(-EBUSY,
			    "%s is in use: %s (--force serves it all the same, and can destroy "
			    "what is on it)",
			    target->path, holders);
	ublkzc_log(UBLKZC_LOG_WARNING, "%s is in use: %s; served all the same (--force)",
		   target->path, holders);
	return open_directly(target, found, flags, ret_direct);
}

static int open_backing(const struct ublkzc_target *target, bool *ret_direct)
{
	int flags = target->read_only ? O_RDONLY : O_RDWR;
	struct stat st = { 0 };
	int found = find_backing(target, &st);
	int fd;

	if (found < 0)
		return found;
	if (S_ISBLK(st.st_mode))
		fd = open_block_device(target, found, flags, st.st_rdev, ret_direct);
	else
		fd = open_directly(target, found, flags, ret_direct);
	close(found);
	if (fd >= 0 || fd == -EBUSY)
		return fd;
	if ((fd == -EROFS || fd == -EACCES || fd == -EPERM) && !target->read_only)
		return fail(fd, "%s cannot be opened for writing (--read-only serves it read-only)",
			    target->path);
	return fail(fd, "%s", target->path);
}

static int lock_backing(const struct ublkzc_target *target)
{
	int ret;

	if (flock(target->fd, (target->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
		return 0;
	ret = -errno;
	if (ret == -EWOULDBLOCK)
		return fail(-EBUSY, "%s is in use by another server", target->path);
	return fail(ret, "%s: lock", target->path);
}

static int block_device_size(struct ublkzc_target *target, uint32_t *ret_block_size)
{
	uint64_t bytes = 0;
	int sector = 0;
	int read_only = 0;

	if (ioctl(target->fd, BLKGETSIZE64, &bytes) < 0 ||
	    ioctl(target->fd, BLKSSZGET, &sector) < 0)
		return -errno;
	target->size = bytes;
	if (ioctl(target->fd, BLKROGET, &read_only) == 0 && read_only)
		target->read_only = true;
	*ret_block_size = (uint32_t)sector;
	return 0;
}

/* Alignment that direct I/O needs: for offsets (at least the block size) and memory. */
static void direct_alignment(const struct ublkzc_target *target, uint32_t *offset_align,
			     uint32_t *memory_align)
{
	struct statx stx = { 0 };

	*offset_align = *memory_align = DIRECT_ALIGN_DEFAULT;
#ifdef STATX_DIOALIGN
	if (statx(target->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 ||
	    !(stx.stx_mask & STATX_DIOALIGN))
		return;
	/* Zero with the mask set: O_DIRECT is accepted, but is buffered I/O. */
	*offset_align = stx.stx_dio_offset_align ? stx.stx_dio_offset_align : 1;
	*memory_align = stx.stx_dio_mem_align ? stx.stx_dio_mem_align : 1;
#endif
}

static int examine(struct ublkzc_target *target, bool direct)
{
	uint32_t minimum = 512;
	uint32_t offset_align = 1;
	struct stat st;
	int ret;

	if (fstat(target->fd, &st) < 0)
		return fail(-errno, "%s", target->path);
	if (S_ISBLK(st.st_mode)) {
		ret = block_device_size(target, &minimum);
		if (ret)
			return fail(ret, "%s: ask its size", target->path);
	} else if (S_ISREG(st.st_mode)) {
		target->size = (uint64_t)st.st_size;
	} else {
		return wrong_kind(target, st.st_mode);
	}
	target->memory_align = 1;
	if (direct)
		direct_alignment(target, &offset_align, &target->memory_align);
	if (offset_align > minimum)
		minimum = offset_align;
	if (minimum > 4096)
		return fail(-EINVAL,
			    "%s needs I/O in units of %u bytes, more than 4096; try --buffered",
			    target->path, minimum);
	if (!target->block_size)
		target->block_size = minimum;
	if (target->block_size < minimum)
		return fail(-EINVAL, "--block-size %u is less than the %u bytes that %s needs",
			    target->block_size, minimum, target->path);
	return 0;
}

int backing_open(struct ublkzc_target *target)
{
	bool direct = target->fd >= 0 && (fcntl(target->fd, F_GETFL) & O_DIRECT);
	uint64_t tail;
	int ret;

	if (target->fd < 0)
		target->fd = open_backing(target, &direct);
	if (target->fd < 0)
		return target->fd;
	if (!direct && ublkzc_setting_yes(target, "buffered") != 1)
		ublkzc_log(UBLKZC_LOG_WARNING,
			   "%s takes no direct I/O: served through the page cache", target->path);
	ret = examine(target, direct);
	if (ret)
		return ret;
	ret = lock_backing(target);
	if (ret)
		return ret;
	tail = target->size % target->block_size;
	target->size -= tail;
	if (target->size && tail)
		ublkzc_log(UBLKZC_LOG_WARNING,
			   "%s: its last %llu bytes are less than a block of %u, and not on the "
			   "device",
			   target->path, (unsigned long long)tail, target->block_size);
	if (!target->size)
		return fail(-EINVAL, "%s is smaller than one block of %u bytes", target->path,
			    target->block_size);
	target->volatile_cache = true;
	target->discard = target->write_zeroes = !target->read_only;
	return 0;
}

/* The file is its owner's to extend. */
int backing_grow(struct ublkzc_target *target, uint64_t *size)
{
	uint64_t bytes = 0;
	struct stat st;

	if (*size)
		return -EINVAL;
	if (fstat(target->fd, &st) < 0)
		return -errno;
	if (S_ISREG(st.st_mode))
		bytes = (uint64_t)st.st_size;
	else if (ioctl(target->fd, BLKGETSIZE64, &bytes) < 0)
		return -errno;
	*size = bytes - bytes % target->block_size;
	return 0;
}
