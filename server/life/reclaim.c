/* SPDX-License-Identifier: MIT */
/* reclaim.c - see reclaim.h. */
#include "reclaim.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "common/log.h"

/*
 * Without a limit, or a later mmap(2) of a client's memory would be refused: all that is
 * mapped counts, also what was never touched.
 */
static int lock_memory(void)
{
	const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };

	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0)
		return -errno;
	/* The program and its libraries are read now, not from a disk that waits for us. */
	if (mlockall(MCL_CURRENT) < 0 || mlockall(MCL_FUTURE | MCL_ONFAULT) < 0)
		return -errno;
	return 0;
}

void reclaim_prepare(const char *who)
{
	int ret = prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0 ? -errno : 0;

	if (ret)
		log_line(LOG_WARN,
			 "%s is no I/O flusher: errno %d (CAP_SYS_RESOURCE is needed): when memory "
			 "is short it can wait for its own device",
			 who, -ret);
	ret = lock_memory();
	if (ret)
		log_line(LOG_WARN,
			 "%s is not locked in memory: errno %d (CAP_SYS_RESOURCE is needed): do "
			 "not swap to its device",
			 who, -ret);
}
