/* SPDX-License-Identifier: MIT */
/*
 * stat_interval.c - see stat_interval.h.
 *
 * How many requests are under way the kernel counts (/sys/block/ublkbN/stat); all else the server.
 */
#include "stat_interval.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/log.h"
#include "server/life/state.h"
#include "io_json.h"
#include "output.h"

#define SAMPLES_MAX 256U /* devices; of more the first are shown */

struct sample {
	unsigned int device;
	double waited_ms; /* of all requests together, by the kernel; -1: it does not tell */
	struct queue_counters sum;
};

struct samples {
	const struct devices *wanted;
	unsigned int nr;
	double at; /* seconds */
	struct sample of[SAMPLES_MAX];
};

/* Field 11 of Documentation/block/stat.rst: requests waiting, times milliseconds. */
static double waited_ms(unsigned int device)
{
	unsigned long long value = 0;
	char path[64];
	FILE *f;
	int nr = 0;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/stat", device);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (nr < 11 && fscanf(f, "%llu", &value) == 1)
		nr++;
	fclose(f);
	return nr == 11 ? (double)value : -1;
}

static bool is_wanted(const struct devices *wanted, unsigned int device)
{
	for (unsigned int i = 0; i < wanted->nr; i++)
		if (wanted->ids[i] == device)
			return true;
	return !wanted->nr;
}

static int take_one(unsigned int device, void *arg)
{
	struct samples *s = arg;
	const struct state *state;

	if (s->nr == SAMPLES_MAX || !is_wanted(s->wanted, device) || state_open(device, &state))
		return 0;
	s->of[s->nr].device = device;
	s->of[s->nr].waited_ms = waited_ms(device);
	state_sum(state, &s->of[s->nr++].sum);
	state_close(state);
	return 0;
}

static void take(struct samples *s, const struct devices *wanted)
{
	struct timespec t;

	s->nr = 0;
	s->wanted = wanted;
	clock_gettime(CLOCK_MONOTONIC, &t);
	s->at = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
	state_for_each(take_one, s);
}

/* A device that was not there before begins at nothing. */
static const struct sample *before_of(const struct samples *s, unsigned int device)
{
	static const struct sample nothing = { .waited_ms = -1 };

	for (unsigned int i = 0; i < s->nr; i++)
		if (s->of[i].device == device)
			return &s->of[i];
	return &nothing;
}

/* Requests under way on average; negative: it is not known. */
static double depth(const struct sample *before, const struct sample *after, double seconds)
{
	if (before->waited_ms < 0 || after->waited_ms < before->waited_ms)
		return -1;
	return (after->waited_ms - before->waited_ms) / 1000 / seconds;
}

/* ---- for people ---- */

static void row(struct table *t, const char *device, const char *op, const struct op_counters *c,
		const struct latency *time, double seconds, bool exact)
{
	uint64_t requests = io_requests(c), bytes = io_bytes(c);
	char text[OUTPUT_SIZE];

	table_cell(t, device);
	table_cell(t, op);
	table_cellf(t, "%.0f", (double)requests / seconds);
	table_cellf(t, "%s/s", size_text(text, (uint64_t)((double)bytes / seconds), exact));
	table_cell(t, requests ? size_text(text, bytes / requests, exact) : "");
	table_cell(t, requests ? time_text(text, latency_percentile(time, 50)) : "");
	table_cell(t, requests ? time_text(text, latency_percentile(time, 99)) : "");
	if (bytes)
		table_cellf(t, "%.1f %%",
			    100.0 * (double)counter_get(&c->zero_copy_bytes) / (double)bytes);
	else
		table_cell(t, "");
}

static void rows(struct table *t, const struct sample *before, const struct sample *after,
		 double seconds, bool exact)
{
	double waiting = depth(before, after, seconds);
	struct queue_counters now;
	char device[32];

	io_between(&before->sum, &after->sum, &now);
	snprintf(device, sizeof(device), "/dev/ublkb%u", after->device);
	row(t, device, "read", &now.read, &now.read_time, seconds, exact);
	if (waiting >= 0)
		table_cellf(t, "%.1f", waiting);
	else
		table_cell(t, "");
	row(t, device, "write", &now.write, &now.write_time, seconds, exact);
	table_cell(t, "");
}

static void report_text(const struct samples *before, const struct samples *after, bool exact)
{
	static const char *const headings[] = { "DEVICE", "OP",	 "REQUESTS/S", "BYTES/S", "SIZE",
						"P50",	  "P99", "ZERO-COPY",  "DEPTH" };
	struct table t;

	table_begin(&t, headings, sizeof(headings) / sizeof(headings[0]), 0x1fc);
	for (unsigned int i = 0; i < after->nr; i++)
		rows(&t, before_of(before, after->of[i].device), &after->of[i],
		     after->at - before->at, exact);
	table_end(&t);
	putchar('\n');
}

/* ---- for programs ---- */

static int report_json(const struct samples *before, const struct samples *after)
{
	json_t *devices = json_array();

	for (unsigned int i = 0; i < after->nr; i++) {
		const struct sample *old = before_of(before, after->of[i].device);
		double waiting = depth(old, &after->of[i], after->at - before->at);
		struct queue_counters now;
		json_t *one;

		io_between(&old->sum, &after->of[i].sum, &now);
		one = io_json(&now);
		json_object_set_new(one, "device", json_integer(after->of[i].device));
		json_object_set_new(one, "queue_depth",
				    waiting < 0 ? json_null() : json_real(waiting));
		json_array_append_new(devices, one);
	}
	return json_print_line("interval", json_pack("{s:f, s:o}", "seconds",
						     after->at - before->at, "devices", devices));
}

/* ---- again and again ---- */

static void wait_until(double at)
{
	struct timespec t = { .tv_sec = (time_t)at };

	t.tv_nsec = (long)((at - (double)t.tv_sec) * 1e9);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

int stat_interval(const struct devices *devices, const struct stat_interval *w)
{
	struct samples *both = calloc(2, sizeof(*both));
	struct samples *before = both, *after = both + 1;
	double due;
	int ret = both ? 0 : -ENOMEM;

	if (ret)
		return log_error(ret, "stat");
	take(before, devices);
	due = before->at;
	for (uint64_t nr = 0; !ret && (!w->count || nr < w->count); nr++) {
		struct samples *old = before;

		due += (double)w->seconds;
		wait_until(due);
		take(after, devices);
		if (w->json)
			ret = report_json(before, after);
		else
			report_text(before, after, w->bytes);
		before = after;
		after = old;
		/* Whoever reads it wants it now; nobody reads any more: the end. */
		if (fflush(stdout) || ferror(stdout))
			break; /* main() says so */
	}
	free(both);
	return ret;
}
