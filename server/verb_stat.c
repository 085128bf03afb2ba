/* SPDX-License-Identifier: MIT */
/* verb_stat.c - the server's own count of what was zero-copy. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "json.h"
#include "sizes.h"
#include "state.h"
#include "verbs.h"

static unsigned long long get(const counter_t *c)
{
	return (unsigned long long)counter_get(c);
}

static void json_op(const char *name, const struct op_counters *op)
{
	printf("\"%s\":{\"zero_copy\":{\"requests\":%llu,\"bytes\":%llu},"
	       "\"copied\":{\"requests\":%llu,\"bytes\":%llu}},",
	       name, get(&op->zero_copy_requests), get(&op->zero_copy_bytes),
	       get(&op->copied_requests), get(&op->copied_bytes));
}

static void stat_json(const struct state *s, const struct queue_counters *c)
{
	printf("{\"device\":%u,\"target\":\"%s\",\"path\":", s->device, s->target);
	json_string(stdout, s->path);
	printf(",\"alive\":%s,\"shmem_zc\":%s,", state_alive(s) ? "true" : "false",
	       s->shmem_zc ? "true" : "false");
	printf("\"buffers\":%llu,\"buffer_bytes\":%llu,\"clients\":%llu,\"refused\":%llu,",
	       get(&s->buffers), get(&s->buffer_bytes), get(&s->clients), get(&s->refused));
	json_op("read", &c->read);
	json_op("write", &c->write);
	printf("\"flush\":%llu,\"discard\":%llu,\"write_zeroes\":%llu,\"errors\":%llu,"
	       "\"bounced\":%llu,\"scattered\":%llu,\"recoveries\":%u,\"pid\":%d,",
	       get(&c->flushes), get(&c->discards), get(&c->write_zeroes), get(&c->errors),
	       get(&c->bounced), get(&c->scattered), s->recoveries, s->pid);
	printf("\"not_zero_copy\":{\"no_feature\":%llu,\"nothing_registered\":%llu,"
	       "\"other_memory\":%llu,\"unknown_buffer\":%llu,\"misaligned\":%llu}}\n",
	       get(&c->copied_no_feature), get(&c->copied_nothing_registered),
	       get(&c->copied_other_memory), get(&c->copied_unknown_buffer),
	       get(&c->copied_misaligned));
}

static void text_op(const char *name, const struct op_counters *op)
{
	unsigned long long bytes = get(&op->zero_copy_bytes) + get(&op->copied_bytes);

	printf("  %-7s %12llu requests  %16llu bytes, %5.1f %% of them zero-copy\n", name,
	       get(&op->zero_copy_requests) + get(&op->copied_requests), bytes,
	       bytes ? 100.0 * (double)get(&op->zero_copy_bytes) / (double)bytes : 0.0);
}

static void explain(const counter_t *c, const char *why)
{
	if (get(c))
		printf("  %12llu requests copied: %s\n", get(c), why);
}

static void stat_text(const struct state *s, const struct queue_counters *c)
{
	printf("/dev/ublkb%u: %s %s%s\n", s->device, s->target, s->path,
	       state_alive(s) ? "" : "(its server is dead)");
	text_op("read", &c->read);
	text_op("write", &c->write);
	printf("  %llu flushes, %llu discards, %llu write-zeroes, %llu failed\n", get(&c->flushes),
	       get(&c->discards), get(&c->write_zeroes), get(&c->errors));
	printf("  %llu clients, %llu registered buffers of %llu bytes in all, %llu messages "
	       "refused\n",
	       get(&s->clients), get(&s->buffers), get(&s->buffer_bytes), get(&s->refused));
	explain(&c->copied_no_feature, "the kernel's ublk driver has no shared-memory zero copy, "
				       "or --copy-only was given");
	explain(&c->copied_nothing_registered,
		"no program had registered memory (not started with libublkzc.so?)");
	explain(&c->copied_other_memory,
		"their memory was not registered, or not in one piece (buffered I/O, file system "
		"metadata, a program without libublkzc.so, scattered buffers)");
	explain(&c->copied_unknown_buffer,
		"their memory was being registered or unregistered just then, or by a server that "
		"died");
	explain(&c->copied_misaligned,
		"they were in several places of registered memory, not all aligned for direct I/O "
		"to the storage");
	if (s->recoveries)
		printf("  %u times another server has taken over\n", s->recoveries);
	if (get(&c->scattered))
		printf("  %llu zero-copy requests were in several places of registered memory\n",
		       get(&c->scattered));
	if (get(&c->bounced))
		printf("  %llu zero-copy requests were not aligned for direct I/O to the storage "
		       "and "
		       "went through a bounce buffer\n",
		       get(&c->bounced));
}

struct wanted {
	bool json;
	bool found;
};

static int stat_one(unsigned int device, void *arg)
{
	struct wanted *w = arg;
	const struct state *state;
	struct queue_counters sum;
	int ret = state_open(device, &state);

	if (ret == -ENOENT)
		return log_error(ret, "no server of ours for device %u (ublkzc list)", device);
	if (ret)
		return log_error(ret, STATE_DIR "/ublkb%u.stat", device);
	state_sum(state, &sum);
	if (w->json)
		stat_json(state, &sum);
	else
		stat_text(state, &sum);
	state_close(state);
	w->found = true;
	return 0;
}

int verb_stat(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "number", required_argument, NULL, 'n' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct wanted w = { 0 };
	uint64_t device = UINT64_MAX;
	int c;

	while ((c = getopt_long(argc, argv, "n:h", longs, NULL)) != -1) {
		if (c == 'j') {
			w.json = true;
		} else if (c == 'n' && number_parse(optarg, 0, 1048575, &device) == 0) {
			continue;
		} else {
			fputs("usage: ublkzc stat [-n ID] [--json]\n", c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : EXIT_USAGE;
		}
	}
	if (device != UINT64_MAX)
		return stat_one((unsigned int)device, &w) ? EXIT_FAILURE : 0;
	return state_for_each(stat_one, &w) ? EXIT_FAILURE : 0;
}
