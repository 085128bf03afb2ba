/* SPDX-License-Identifier: MIT */
/* device_process.c - what the server is as a process: limits, privileges, memory, signals. */
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "common/log.h"
#include "server/life/privileges.h"
#include "server/life/reclaim.h"
#include "device_internal.h"

/* Each client is a connection and a pidfd, and brings files: what is allowed must be possible. */
static void raise_fd_limit(const struct device *d)
{
	struct rlimit limit;
	rlim_t wanted = 2 * (rlim_t)d->options->max_clients + BUFFERS_FILES_MAX + 1024U;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted)
		limit.rlim_max = wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_line(LOG_WARN,
			 "the limit of descriptors cannot be raised to %llu: fewer clients than "
			 "--max-clients",
			 (unsigned long long)wanted);
}

int device_open_events(struct device *d)
{
	sigset_t set;

	raise_fd_limit(d);
	reclaim_prepare("the server");
	privileges_keep_control();
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	/* Before any thread is made, so that all inherit the mask. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->signal_fd < 0)
		return log_error(-errno, "signalfd");
	d->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->done_fd < 0)
		return log_error(-errno, "eventfd");
	return 0;
}
