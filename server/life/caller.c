/* SPDX-License-Identifier: MIT */
/* caller.c - see caller.h. */
#include "caller.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/log.h"

void caller_fill_streams(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		/* The lowest that is free, which is this one; the wrong way around. */
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
			_exit(127); /* and there is nobody who could be told */
}

void caller_forget_signals(void)
{
	signal(SIGCHLD, SIG_DFL);
}

void caller_lift_limits(void)
{
	static const struct {
		int resource;
		const char *name;
	} limits[] = {
		{ RLIMIT_FSIZE, "the size of files" },
		{ RLIMIT_CPU, "processor time" },
		{ RLIMIT_AS, "address space" },
		{ RLIMIT_DATA, "memory" },
	};

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
		struct rlimit limit;

		if (setrlimit(limits[i].resource, &none) == 0 ||
		    getrlimit(limits[i].resource, &limit) < 0)
			continue;
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(limits[i].resource, &limit) == 0 && limit.rlim_max != RLIM_INFINITY)
			log_line(LOG_WARN,
				 "the server's limit of %s stays %llu (CAP_SYS_RESOURCE is "
				 "needed): beyond it, it may be killed",
				 limits[i].name, (unsigned long long)limit.rlim_max);
	}
}
