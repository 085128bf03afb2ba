/* SPDX-License-Identifier: MIT */
/* guard.c - see guard.h. */
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"

static int guard_fd = -1; /* kept for the life of the process */

/* Faults are never handled, so it needs no privilege: UFFD_USER_MODE_ONLY. */
static void open_once(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM |
			    UFFD_FEATURE_MISSING_HUGETLBFS,
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0) {
		guard_fd = fd;
		return;
	}
	log_line(LOG_WARN,
		 "userfaultfd is not available (errno %d): pages that a client gives back in the "
		 "moment in which they are registered are charged to the server",
		 errno);
	if (fd >= 0)
		close(fd);
}

void guard_open(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, open_once);
}

bool guard_works(void)
{
	guard_open();
	return guard_fd >= 0;
}

static int arm(void *base, size_t len)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)base, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (!guard_works())
		return 0;
	return ioctl(guard_fd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

/*
 * Nobody may touch it before it is guarded, not even the kernel: to a program that has locked its
 * future memory, mmap(2) gives all huge pages of a mapping at once, MCL_ONFAULT or not.
 */
int guard_map(int fd, uint64_t offset, size_t len, int prot, void **ret_base, int *ret_guard)
{
	void *at = mmap(NULL, len, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset);
	int err;

	if (at == MAP_FAILED)
		return -errno;
	/* Locking all our memory (mlockall) is not meant for the clients'. */
	munlock(at, len);
	if (ret_guard)
		*ret_guard = arm(at, len);
	if (mprotect(at, len, prot) < 0) {
		err = -errno;
		munmap(at, len);
		return err;
	}
	*ret_base = at;
	return 0;
}
