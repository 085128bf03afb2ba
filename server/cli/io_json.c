/* SPDX-License-Identifier: MIT */
/* io_json.c - see io_json.h. */
#include "io_json.h"

#include <string.h>

static json_t *count(const counter_t *c)
{
	return json_integer((json_int_t)counter_get(c));
}

static json_t *op_json(const struct op_counters *op, const struct latency *time)
{
	return json_pack("{s:{s:o, s:o}, s:{s:o, s:o}, s:{s:I, s:I}}", "zero_copy", "requests",
			 count(&op->zero_copy_requests), "bytes", count(&op->zero_copy_bytes),
			 "copied", "requests", count(&op->copied_requests), "bytes",
			 count(&op->copied_bytes), "latency_ns", "p50",
			 (json_int_t)latency_percentile(time, 50), "p99",
			 (json_int_t)latency_percentile(time, 99));
}

uint64_t io_requests(const struct op_counters *op)
{
	return counter_get(&op->zero_copy_requests) + counter_get(&op->copied_requests);
}

uint64_t io_bytes(const struct op_counters *op)
{
	return counter_get(&op->zero_copy_bytes) + counter_get(&op->copied_bytes);
}

static json_t *why_copied_json(const struct queue_counters *c)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "no_feature", count(&c->copied_no_feature),
			 "nothing_registered", count(&c->copied_nothing_registered), "other_memory",
			 count(&c->copied_other_memory), "unknown_buffer",
			 count(&c->copied_unknown_buffer), "misaligned",
			 count(&c->copied_misaligned));
}

json_t *io_json(const struct queue_counters *c)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "read",
			 op_json(&c->read, &c->read_time), "write",
			 op_json(&c->write, &c->write_time), "flush", count(&c->flushes), "discard",
			 count(&c->discards), "write_zeroes", count(&c->write_zeroes), "errors",
			 count(&c->errors), "bounced", count(&c->bounced), "scattered",
			 count(&c->scattered), "fixed", count(&c->fixed), "fixed_refused",
			 count(&c->fixed_refused), "fixed_bytes", count(&c->fixed_bytes),
			 "unanswered_bytes",
			 count(&c->copied_unanswered_bytes), "not_zero_copy", why_copied_json(c));
}

void io_between(const struct queue_counters *before, const struct queue_counters *after,
		struct queue_counters *ret)
{
	/* Each field of the structure is a counter, so it is taken as an array. */
	const counter_t *from = (const counter_t *)before;
	const counter_t *to = (const counter_t *)after;
	counter_t *difference = (counter_t *)ret;

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < sizeof(*ret) / sizeof(counter_t); i++)
		counter_add(&difference[i], counter_get(&to[i]) - counter_get(&from[i]));
	/* But this is what there is, not what was done. */
	atomic_store_explicit(&ret->fixed_bytes, counter_get(&after->fixed_bytes),
			      memory_order_relaxed);
}
