/* SPDX-License-Identifier: MIT */
/* device_queues.c - a thread for each hardware queue. */
#include <errno.h>
#include <stdlib.h>

#include "common/log.h"
#include "server/life/privileges.h"
#include "device_internal.h"

/* It works, slower; stat tells how often it was not enough. */
static void say_limit(const struct device *d)
{
	uint64_t limit;

	if (d->shmem_zc && (d->engine->flags & UBLKZC_FIXED) && !privileges_may_pin(&limit))
		log_line(LOG_WARN,
			 "without CAP_IPC_LOCK only RLIMIT_MEMLOCK, %llu bytes, of registered "
			 "memory can "
			 "be pinned for good: in the rest each request pins its pages",
			 (unsigned long long)limit);
}

int device_start_queues(struct device *d)
{
	say_limit(d);
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
			.copied = &d->state->copied,
		};
		int ret;

		if (ctrl_get_affinity(&d->ctrl, d->info.dev_id, i, &config.cpus))
			CPU_ZERO(&config.cpus);
		ret = queue_start(&d->queues[i], &config, d->done_fd);
		if (ret)
			return ret;
		d->nr_started++;
	}
	return 0;
}
