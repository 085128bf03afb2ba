/* SPDX-License-Identifier: MIT */
/* verb_stat.c - "stat": the server's own count of what was zero-copy. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "server/life/state.h"
#include "command.h"
#include "io_json.h"
#include "openmetrics.h"
#include "openmetrics_http.h"
#include "output.h"
#include "sizes.h"
#include "stat_interval.h"
#include "verbs.h"

#define INTERVAL_MAX 86400U /* seconds: a day */

static unsigned long long get(const counter_t *c)
{
	return (unsigned long long)counter_get(c);
}

/* ---- for programs ---- */

static json_t *count(const counter_t *c)
{
	return json_integer((json_int_t)counter_get(c));
}

static json_t *stat_json(const struct state *s, const struct queue_counters *c)
{
	json_t *of_device = json_pack(
		"{s:i, s:s, s:o, s:b, s:b, s:i, s:i, s:o, s:o, s:o, s:o}", "device", (int)s->device,
		"target", s->target, "path", json_text(s->path), "alive", state_alive(s),
		"shmem_zc", s->shmem_zc, "recoveries", (int)s->recoveries, "pid", s->pid, "buffers",
		count(&s->buffers), "buffer_bytes", count(&s->buffer_bytes), "clients",
		count(&s->clients), "refused", count(&s->refused));
	json_t *of_io = io_json(c);

	json_object_update(of_device, of_io);
	json_decref(of_io);
	return of_device;
}

/* ---- for people ---- */

static void text_op(const char *name, const struct op_counters *op, const struct latency *time,
		    bool exact)
{
	unsigned long long bytes = io_bytes(op);
	char size[OUTPUT_SIZE], half[OUTPUT_SIZE], most[OUTPUT_SIZE];

	printf("  %-7s %12llu requests  %16s, %5.1f %% of them zero-copy", name,
	       (unsigned long long)io_requests(op), size_text(size, bytes, exact),
	       bytes ? 100.0 * (double)get(&op->zero_copy_bytes) / (double)bytes : 0.0);
	if (latency_count(time))
		printf("; p50 %s, p99 %s", time_text(half, latency_percentile(time, 50)),
		       time_text(most, latency_percentile(time, 99)));
	putchar('\n');
}

static void explain(const counter_t *c, const char *why)
{
	if (get(c))
		printf("  %12llu requests copied: %s\n", get(c), why);
}

static void stat_text(const struct state *s, const struct queue_counters *c, bool exact)
{
	char size[OUTPUT_SIZE];

	printf("/dev/ublkb%u: %s %s%s\n", s->device, s->target, s->path,
	       state_alive(s) ? "" : " (its server is dead: ublkzc recover)");
	text_op("read", &c->read, &c->read_time, exact);
	text_op("write", &c->write, &c->write_time, exact);
	printf("  %llu flushes, %llu discards, %llu write-zeroes, %llu failed\n", get(&c->flushes),
	       get(&c->discards), get(&c->write_zeroes), get(&c->errors));
	printf("  %llu clients, %llu registered buffers of %s in all, %llu messages refused\n",
	       get(&s->clients), get(&s->buffers), size_text(size, get(&s->buffer_bytes), exact),
	       get(&s->refused));
	explain(&c->copied_no_feature, "the kernel's ublk driver has no shared-memory zero copy, "
				       "or --copy-only was given");
	explain(&c->copied_nothing_registered,
		"no program had registered memory (not started with libublkzc.so?)");
	explain(&c->copied_other_memory,
		"their memory was not registered, or not in one piece (buffered I/O, file system "
		"metadata, a program without libublkzc.so, scattered buffers)");
	if (get(&c->copied_unanswered_bytes))
		printf("  %15s were copied before the server had answered a program: it was still "
		       "registering its memory\n",
		       size_text(size, get(&c->copied_unanswered_bytes), exact));
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
	if (get(&c->fixed))
		printf("  %llu zero-copy requests reached the storage without pinning a page\n",
		       get(&c->fixed));
	if (get(&c->fixed_refused))
		printf("  %llu times no more memory could be pinned for good: requests in the rest "
		       "of it "
		       "pin their pages each time (the server has no CAP_IPC_LOCK and a "
		       "RLIMIT_MEMLOCK, or memory is short)\n",
		       get(&c->fixed_refused));
}

/* ---- the verb ---- */

struct wish {
	bool bytes, http;
	json_t *devices;	       /* NULL: text */
	const char *metrics;	       /* where to; NULL: nowhere */
	struct stat_interval interval; /* seconds 0: what was counted so far */
};

static int open_state(unsigned int device, const struct state **ret)
{
	int err = state_open(device, ret);

	if (err == -ENOENT)
		return log_error(err, "no server of ours for device %u (ublkzc list)", device);
	return err ? log_error(err, STATE_DIR "/ublkb%u.stat", device) : 0;
}

static int stat_one(unsigned int device, void *arg)
{
	struct wish *w = arg;
	const struct state *state;
	struct queue_counters sum;
	int ret = open_state(device, &state);

	if (ret)
		return ret;
	state_sum(state, &sum);
	if (w->devices)
		json_array_append_new(w->devices, stat_json(state, &sum));
	else
		stat_text(state, &sum, w->bytes);
	state_close(state);
	return 0;
}

static int stat_devices(const struct devices *devices, struct wish *w)
{
	int ret = 0;

	if (!devices->nr)
		ret = state_for_each(stat_one, w);
	for (unsigned int i = 0; !ret && i < devices->nr; i++)
		ret = stat_one(devices->ids[i], w);
	if (w->devices && ret)
		json_decref(w->devices);
	else if (w->devices)
		ret = json_print("devices", w->devices);
	return ret;
}

static const struct flag flags[] = {
	FLAG_DEVICE,
	{ 'i', "interval", WORD_ANY, "SECONDS",
	  "what happens now: rates, sizes, latency, depth and the share of zero copy, again and "
	  "again" },
	{ 'c', "count", WORD_ANY, "NR", "with --interval: so many reports, then end" },
	{ 'b', "bytes", WORD_NONE, NULL, "sizes in bytes" },
	FLAG_JSON('j'),
	{ 'o', "openmetrics", WORD_FILE, "FILE",
	  "write the counters to FILE for monitoring (node_exporter's textfile collector); - is "
	  "standard output" },
	{ 'H', "http", WORD_NONE, NULL,
	  "with --openmetrics -: as the answer to an HTTP request on standard input, which a "
	  "socket unit passes (ublkzc-metrics.socket)" },
};

static int set_number(const struct command_line *line, uint64_t max, uint64_t *ret)
{
	if (number_parse(line->value, 1, max, ret) == 0)
		return 0;
	return command_error(line->command, "--%s '%s': wants a whole number from 1 to %llu",
			     line->flag->name, line->value, (unsigned long long)max);
}

static int parse(struct command_line *line, struct devices *devices, struct wish *w)
{
	int key;

	while ((key = command_next(line)) > 0) {
		if (key == 'n' && devices_add(devices, line->command, line->value))
			return LINE_BAD;
		if (key == 'i' && set_number(line, INTERVAL_MAX, &w->interval.seconds))
			return LINE_BAD;
		if (key == 'c' && set_number(line, UINT32_MAX, &w->interval.count))
			return LINE_BAD;
		if (key == 'o')
			w->metrics = line->value;
		if (key == 'j')
			w->interval.json = true;
		w->bytes |= key == 'b';
		w->http |= key == 'H';
	}
	w->interval.bytes = w->bytes;
	if (!key && w->interval.count && !w->interval.seconds)
		return command_error(line->command, "--count is for --interval");
	if (!key && w->metrics && (w->interval.json || w->interval.seconds || w->bytes))
		return command_error(line->command, "--openmetrics goes with devices only");
	if (!key && w->http && (!w->metrics || strcmp(w->metrics, "-") != 0))
		return command_error(line->command, "--http goes with --openmetrics -");
	return key ? key : devices_add_operands(devices, line);
}

/* There is nothing to wait for of a device that is not. */
static int check_devices(const struct devices *devices)
{
	for (unsigned int i = 0; i < devices->nr; i++) {
		const struct state *state;
		int ret = open_state(devices->ids[i], &state);

		if (ret)
			return ret;
		state_close(state);
	}
	return 0;
}

static int show(const struct devices *devices, struct wish *w)
{
	int ret;

	if (w->metrics) {
		ret = check_devices(devices);
		if (!ret && w->http)
			return openmetrics_http(devices);
		return ret ? ret : openmetrics_write(devices, w->metrics);
	}
	if (!w->interval.seconds) {
		w->devices = w->interval.json ? json_array() : NULL;
		return stat_devices(devices, w);
	}
	ret = check_devices(devices);
	return ret ? ret : stat_interval(devices, &w->interval);
}

static int stat(const struct command *command, int argc, char **argv)
{
	struct devices devices = { 0 };
	struct command_line line;
	struct wish w = { 0 };
	int ret;

	command_begin(&line, command, argc, argv);
	ret = parse(&line, &devices, &w);
	if (ret)
		ret = command_status(ret);
	else
		ret = show(&devices, &w) ? EXIT_FAILURE : 0;
	devices_free(&devices);
	return ret;
}

const struct command command_stat = {
	.name = "stat",
	.summary = "how much was zero-copy, how much was not, and why",
	.operands = "[DEVICE...]",
	.operand = WORD_DEVICE,
	.about = "As the server counted since the device was made; without DEVICE of all. The "
		 "server is not asked, so it may hang or be dead.\n"
		 "Latency (p50: half of the requests took no longer, p99: 99 of 100) is from when "
		 "the server takes a request to its answer, within a fifth. DEPTH is how many "
		 "requests the kernel had under way on average.",
	FLAGS(flags),
	.run = stat,
};
