/* SPDX-License-Identifier: MIT */
/* device_setup.c - the steps that lead to a live device. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/lock.h"
#include "server/life/privileges.h"
#include "server/life/reclaim.h"
#include "device_internal.h"

int device_take_lock(struct device *d)
{
	struct vault_record record = { .kind = VAULT_LOCK };
	char path[64];
	int fd;
	int ret = lock_take(d->info.dev_id, &fd);

	lock_path(path, sizeof(path), d->info.dev_id);
	if (ret == -EEXIST)
		return log_error(ret, "device %u has a server, which holds %s", d->info.dev_id,
				 path);
	if (ret)
		return log_error(ret, "%s", path);
	d->locked = true;
	vault_put(d->vault, &record, fd);
	return 0;
}

int device_create_state(struct device *d)
{
	const struct ublkzc_target *t = &d->target;
	struct vault_record record = {
		.kind = VAULT_STATE,
		.state = { .number = d->info.dev_id },
	};
	int fd = -1;
	int ret = state_create(d->info.dev_id, d->info.nr_hw_queues, &d->state, &fd);

	if (ret)
		return log_error(ret, STATE_DIR "/ublkb%u.stat", d->info.dev_id);
	d->state->depth = d->info.queue_depth;
	d->state->block_size = t->block_size;
	d->state->size = d->size;
	d->state->shmem_zc = d->shmem_zc;
	d->state->read_only = t->read_only;
	snprintf(d->state->target, sizeof(d->state->target), "%s", d->engine->name);
	if (t->path)
		snprintf(d->state->path, sizeof(d->state->path), "%s", t->path);
	d->state->keeper = d->vault->fd >= 0 ? getppid() : 0;
	vault_put(d->vault, &record, fd);
	return 0;
}

int device_start_queues(struct device *d)
{
	d->queues = calloc(d->info.nr_hw_queues, sizeof(*d->queues));
	if (!d->queues)
		return log_error(-ENOMEM, "%u queues", d->info.nr_hw_queues);
	for (unsigned int i = 0; i < d->info.nr_hw_queues; i++) {
		struct queue_config config = {
			.id = i,
			.depth = d->info.queue_depth,
			.max_io = d->info.max_io_buf_bytes,
			.char_fd = d->char_fd,
			.shmem_zc = d->shmem_zc,
			.lists = (d->info.flags & UAPI_F_SHMEM_SEGS) != 0,
			.memory_align = d->target.memory_align ? d->target.memory_align : 1,
			.engine = d->engine,
			.target = &d->target,
			.size = &d->size,
			.registry = &d->registry,
			.counters = &d->state->queues[i],
		};
		int ret = queue_start(&d->queues[i], &config, d->done_fd);

		if (ret)
			return ret;
		d->nr_started++;
	}
	return 0;
}

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
