/* SPDX-License-Identifier: MIT */
/* memfile.c - see memfile.h. */
#include "memfile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdatomic.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "sys.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

static atomic_uint nr_made; /* for the next one's name */

static bool is_limited(int resource)
{
	struct rlimit64 limit = { 0 };

	sys_call(SYS_prlimit64, 0, resource, 0, (long)&limit, 0, 0);
	return limit.rlim_cur != RLIM64_INFINITY;
}

/* All that can be read can be executed, of private memory: of a memfd not. */
static bool reads_are_executable(void)
{
	long now = sys_call(SYS_personality, 0xffffffff, 0, 0, 0, 0, 0);

	return now >= 0 && (now & READ_IMPLIES_EXEC);
}

/*
 * Of shared memory a page counts when it is touched, and where no more may be had that is
 * SIGBUS; a private mapping would not have been made (vm.overcommit_memory=2).
 */
static bool memory_is_counted(void)
{
	long fd = sys_call(SYS_openat, AT_FDCWD, (long)"/proc/sys/vm/overcommit_memory",
			   O_RDONLY | O_CLOEXEC, 0, 0, 0);
	char mode = 0;

	if (fd < 0)
		return false;
	sys_call(SYS_read, fd, (long)&mode, 1, 0, 0, 0);
	sys_close((int)fd);
	return mode == '2';
}

static long create(unsigned int huge)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | huge;
	char name[48];
	long fd;

	log_format(name, sizeof(name), "ublkzc:%d:%u", (int)sys_getpid(),
		   atomic_fetch_add(&nr_made, 1));
	fd = sys_call(SYS_memfd_create, (long)name, flags | MFD_NOEXEC_SEAL, 0, 0, 0, 0);
	if (fd == -EINVAL)
		fd = sys_call(SYS_memfd_create, (long)name, flags, 0, 0, 0, 0);
	return fd < 0 ? fd : sys_move_fd_high((int)fd);
}

/* Nobody else of the same user must open it through /proc/PID/fd and write to what
 * the program believes its own: whoever is to have it is given the descriptor. */
static long finish(struct memfile *f, size_t len)
{
	struct stat st = { 0 };
	long ret = sys_call(SYS_ftruncate, f->fd, (long)len, 0, 0, 0, 0);

	if (ret == 0)
		ret = sys_call(SYS_fcntl, f->fd, F_ADD_SEALS,
			       F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, 0, 0, 0);
	if (ret == 0)
		sys_call(SYS_fchmod, f->fd, 0, 0, 0, 0, 0);
	if (ret == 0)
		ret = sys_fstat(f->fd, &st);
	if (ret < 0)
		return ret;
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	return 0;
}

int memfile_make(struct memfile *ret, size_t len, unsigned int huge)
{
	long err;

	/* Growing the memfd past it would raise SIGXFSZ. */
	if (is_limited(RLIMIT_FSIZE))
		return -EFBIG;
	/* Private memory counts as data, shared does not: a child could not have its copy. */
	if (is_limited(RLIMIT_DATA) || memory_is_counted())
		return -ENOMEM;
	if (reads_are_executable())
		return -EACCES;
	err = create(huge);
	if (err < 0)
		return (int)err;
	*ret = (struct memfile){ .fd = (int)err };
	err = finish(ret, len);
	if (err < 0) {
		sys_close(ret->fd);
		*ret = (struct memfile){ .fd = -1 };
	}
	return (int)err;
}

bool memfile_valid(const struct memfile *f)
{
	return sys_fd_is(f->fd, f->dev, f->ino);
}

int memfile_duplicate(const struct memfile *f)
{
	struct memfile copy = *f;

	if (!memfile_valid(f))
		return -EBADF;
	copy.fd = (int)sys_call(SYS_fcntl, f->fd, F_DUPFD_CLOEXEC, f->fd, 0, 0, 0);
	/* The program may have put something else there a moment ago. */
	if (copy.fd >= 0 && !memfile_valid(&copy)) {
		sys_close(copy.fd);
		return -EBADF;
	}
	return copy.fd;
}

void memfile_close(struct memfile *f)
{
	if (memfile_valid(f))
		sys_close(f->fd);
	*f = (struct memfile){ .fd = -1 };
}

bool memfile_punch(const struct memfile *f, uint64_t offset, size_t len)
{
	return memfile_valid(f) &&
	       sys_call(SYS_fallocate, f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(long)offset, (long)len, 0, 0) == 0;
}

bool memfile_each_data(const struct memfile *f, uint64_t offset, size_t len,
		       void (*each)(uint64_t offset, size_t len, void *arg), void *arg)
{
	uint64_t end = offset + len;

	if (!memfile_valid(f))
		return false;
	while (offset < end) {
		long from = sys_call(SYS_lseek, f->fd, (long)offset, SEEK_DATA, 0, 0, 0);
		long to;

		if (from < 0 || (uint64_t)from >= end)
			return from >= 0 || from == -ENXIO;
		to = sys_call(SYS_lseek, f->fd, from, SEEK_HOLE, 0, 0, 0);
		if (to < 0 || (uint64_t)to > end)
			to = (long)end;
		each((uint64_t)from, (size_t)(to - from), arg);
		offset = (uint64_t)to;
	}
	return true;
}

size_t memfile_resident(const struct memfile *f, size_t otherwise)
{
	struct stat st;

	if (f->fd < 0 || sys_fstat(f->fd, &st) < 0 || st.st_dev != f->dev || st.st_ino != f->ino)
		return otherwise;
	return (size_t)st.st_blocks * 512;
}
