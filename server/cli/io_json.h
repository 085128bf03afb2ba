/* SPDX-License-Identifier: MIT */
/* io_json.h - a device's counters, for programs: what stat and run have in common. */
#ifndef UBLKZC_SERVER_CLI_IO_JSON_H
#define UBLKZC_SERVER_CLI_IO_JSON_H

#include <jansson.h>

#include "server/life/state.h"

/* The members that ublkzc-json(5) has under "read" to "not_zero_copy"; NULL: no memory. */
json_t *io_json(const struct queue_counters *c);

/* The counters of one direction: requests and bytes in all. */
uint64_t io_requests(const struct op_counters *op);
uint64_t io_bytes(const struct op_counters *op);

/* What was counted between two moments. */
void io_between(const struct queue_counters *before, const struct queue_counters *after,
		struct queue_counters *ret);

#endif
