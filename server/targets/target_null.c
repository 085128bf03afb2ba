/* SPDX-License-Identifier: MIT */
/*
 * target_null.c - does nothing, at once: the benchmark's ceiling and the
 * smallest target there is.  Reads leave a matched buffer as it was.
 */
#include "server/queue/queue.h"
#include "server/queue/target.h"
#include "targets.h"

static int null_open(struct target *target)
{
	target->memory_align = 1;
	target->block_size = target->block_size ? target->block_size : 512;
	target->discard = true;
	return 0;
}

static void null_submit(struct queue *q, struct request *rq)
{
	request_complete(q, rq, 0);
}

static void null_close(struct target *target)
{
	(void)target;
}

const struct target_ops target_null = {
	.name = "null",
	.help = "no storage: reads return whatever, writes vanish (--size, default 250G)",
	.takes_size = true,
	.open = null_open,
	.submit = null_submit,
	.close = null_close,
};
