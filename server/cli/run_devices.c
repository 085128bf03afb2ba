/* SPDX-License-Identifier: MIT */
/* run_devices.c - see run_devices.h. */
#include "run_devices.h"

#include <stdio.h>

#include "io_json.h"
#include "output.h"

static int take_one(unsigned int device, void *arg)
{
	struct run_devices *s = arg;
	const struct state *state;

	if (s->nr == RUN_DEVICES_MAX || state_open(device, &state))
		return 0;
	s->of[s->nr].device = device;
	state_sum(state, &s->of[s->nr++].sum);
	state_close(state);
	return 0;
}

void run_devices_look(struct run_devices *s)
{
	s->nr = 0;
	state_for_each(take_one, s);
}

static const struct queue_counters *find_device(const struct run_devices *s, unsigned int device)
{
	static const struct queue_counters nothing;

	for (unsigned int i = 0; i < s->nr; i++)
		if (s->of[i].device == device)
			return &s->of[i].sum;
	return &nothing;
}

#define DELTA(field)                                                                               \
	((unsigned long long)(counter_get(&after->field) - counter_get(&before->field)))

static void say_why_copied(const struct queue_counters *before, const struct queue_counters *after,
			   bool bytes)
{
	char size[OUTPUT_SIZE];

	if (DELTA(copied_no_feature))
		fprintf(stderr,
			"  %llu requests copied: the kernel's ublk driver has no shared-memory "
			"zero "
			"copy, or --copy-only was given\n",
			DELTA(copied_no_feature));
	if (DELTA(copied_nothing_registered))
		fprintf(stderr, "  %llu requests copied: no program had registered memory\n",
			DELTA(copied_nothing_registered));
	if (DELTA(copied_unanswered_bytes))
		fprintf(stderr,
			"  %s were copied before the server had answered: it was still "
			"registering the program's memory\n",
			size_text(size, DELTA(copied_unanswered_bytes), bytes));
	if (DELTA(copied_other_memory))
		fprintf(stderr,
			"  %llu requests copied: their memory was not registered, or not in one "
			"piece (buffered I/O, file system metadata, scattered buffers, other "
			"programs)\n",
			DELTA(copied_other_memory));
}

static bool say_device(unsigned int device, const struct queue_counters *before,
		       const struct queue_counters *after, bool explain, bool bytes)
{
	unsigned long long zero = DELTA(read.zero_copy_bytes) + DELTA(write.zero_copy_bytes);
	unsigned long long all = zero + DELTA(read.copied_bytes) + DELTA(write.copied_bytes);
	char zero_text[OUTPUT_SIZE], all_text[OUTPUT_SIZE];

	if (!all)
		return false;
	fprintf(stderr, "ublkzc: /dev/ublkb%u: %s of %s zero-copy (%.1f %%)\n", device,
		size_text(zero_text, zero, bytes), size_text(all_text, all, bytes),
		100.0 * (double)zero / (double)all);
	if (explain)
		say_why_copied(before, after, bytes);
	return true;
}

void run_devices_say(const struct run_devices *before, const struct run_devices *after,
		     bool explain, bool bytes)
{
	bool any = false;

	for (unsigned int i = 0; i < after->nr; i++)
		any |= say_device(after->of[i].device, find_device(before, after->of[i].device),
				  &after->of[i].sum, explain, bytes);
	if (!any)
		fprintf(stderr, "ublkzc: no ublkzc device was read or written meanwhile%s\n",
			after->nr ? "" : " (no server is running: ublkzc list)");
}

void run_devices_bytes(const struct run_devices *before_all, const struct run_devices *after_all,
		       unsigned long long *ret_zero_copy, unsigned long long *ret_all)
{
	*ret_zero_copy = *ret_all = 0;
	for (unsigned int i = 0; i < after_all->nr; i++) {
		const struct queue_counters *after = &after_all->of[i].sum;
		const struct queue_counters *before =
			find_device(before_all, after_all->of[i].device);
		unsigned long long zero =
			DELTA(read.zero_copy_bytes) + DELTA(write.zero_copy_bytes);

		*ret_zero_copy += zero;
		*ret_all += zero + DELTA(read.copied_bytes) + DELTA(write.copied_bytes);
	}
}

json_t *run_devices_json(const struct run_devices *before, const struct run_devices *after)
{
	json_t *devices = json_array();

	for (unsigned int i = 0; i < after->nr; i++) {
		struct queue_counters meanwhile;
		json_t *of_io;

		io_between(find_device(before, after->of[i].device), &after->of[i].sum, &meanwhile);
		of_io = io_json(&meanwhile);
		json_object_set_new(of_io, "device", json_integer(after->of[i].device));
		json_array_append_new(devices, of_io);
	}
	return devices;
}
