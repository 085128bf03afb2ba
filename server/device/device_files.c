/* SPDX-License-Identifier: MIT */
/* device_files.c - what there is of the device in /run/ublkzc: its lock, its state. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/lock.h"
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
