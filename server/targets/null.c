/* SPDX-License-Identifier: MIT */
/*
 * null.c - does nothing, at once: the benchmark's ceiling and the
 * smallest engine there is.  Reads leave a matched buffer as it was.
 */
#include "engines.h"

static int null_open(struct ublkzc_target *target)
{
	target->block_size = target->block_size ? target->block_size : 512;
	target->discard = target->write_zeroes = true;
	return 0;
}

static void null_submit(struct ublkzc_request *rq)
{
	ublkzc_complete(rq, 0);
}

static void null_close(struct ublkzc_target *target)
{
	(void)target;
}

const struct ublkzc_engine engine_null = {
	.size = sizeof(engine_null),
	.flags = UBLKZC_TAKES_SIZE,
	.name = "null",
	.summary = "no storage: reads return whatever, writes vanish",
	.default_size = 250ULL << 30,
	.open = null_open,
	.submit = null_submit,
	.close = null_close,
};
