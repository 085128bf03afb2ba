/* SPDX-License-Identifier: MIT */
/* run_devices.h - what the servers counted while a program ran. */
#ifndef UBLKZC_SERVER_CLI_RUN_DEVICES_H
#define UBLKZC_SERVER_CLI_RUN_DEVICES_H

#include <jansson.h>
#include <stdbool.h>

#include "server/life/state.h"

#define RUN_DEVICES_MAX 64

/* The servers' counters at one moment. */
struct run_devices {
	unsigned int nr;
	struct {
		unsigned int device;
		struct queue_counters sum;
	} of[RUN_DEVICES_MAX];
};

void run_devices_look(struct run_devices *s);

/* Between two looks, of all devices: bytes that were zero-copy, and all bytes. */
void run_devices_bytes(const struct run_devices *before, const struct run_devices *after,
		       unsigned long long *ret_zero_copy, unsigned long long *ret_all);

/* The same for people, on standard error; and for programs, the caller's then. */
void run_devices_say(const struct run_devices *before, const struct run_devices *after,
		     bool explain, bool bytes);
json_t *run_devices_json(const struct run_devices *before, const struct run_devices *after);

#endif
