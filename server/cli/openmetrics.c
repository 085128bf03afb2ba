/* SPDX-License-Identifier: MIT */
/*
 * openmetrics.c - see openmetrics.h.
 *
 * The format wants all samples of a metric together, so that devices are gone through once for
 * each. ublkzc-json(5) says what the counters are.
 */
#include "openmetrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/state.h"

#define DEVICES_MAX 256U /* of more the first are written */

struct all {
	FILE *out;
	const struct devices *wanted;
	unsigned int nr;
	const struct state *states[DEVICES_MAX];
	struct queue_counters *sums;
};

static int take_one(unsigned int device, void *arg)
{
	struct all *a = arg;
	bool wanted = !a->wanted->nr;

	for (unsigned int i = 0; i < a->wanted->nr; i++)
		wanted |= a->wanted->ids[i] == device;
	if (!wanted || a->nr == DEVICES_MAX || state_open(device, &a->states[a->nr]))
		return 0;
	state_sum(a->states[a->nr], &a->sums[a->nr]);
	a->nr++;
	return 0;
}

static void family(const struct all *a, const char *name, const char *type, const char *help)
{
	fprintf(a->out, "# TYPE ublkzc_%s %s\n# HELP ublkzc_%s %s\n", name, type, name, help);
}

/* A sample: @labels are those beside the device's, with their comma. */
static void sample(const struct all *a, unsigned int i, const char *name, const char *labels,
		   uint64_t value)
{
	fprintf(a->out, "ublkzc_%s{device=\"ublkb%u\"%s} %llu\n", name, a->states[i]->device,
		labels, (unsigned long long)value);
}

/* ---- what the state shows ---- */

static uint64_t is_up(const struct state *s)
{
	return state_alive(s);
}

static uint64_t buffers(const struct state *s)
{
	return counter_get(&s->buffers);
}

static uint64_t buffer_bytes(const struct state *s)
{
	return counter_get(&s->buffer_bytes);
}

static uint64_t clients(const struct state *s)
{
	return counter_get(&s->clients);
}

static uint64_t refused(const struct state *s)
{
	return counter_get(&s->refused);
}

static uint64_t recoveries(const struct state *s)
{
	return s->recoveries;
}

static const struct {
	const char *name, *suffix, *type, *help;
	uint64_t (*get)(const struct state *s);
} of_state[] = {
	{ "up", "", "gauge", "Whether a server serves the device.", is_up },
	{ "buffers", "", "gauge", "Registered buffers.", buffers },
	{ "buffer_bytes", "", "gauge", "Registered memory.", buffer_bytes },
	{ "clients", "", "gauge", "Connections of clients.", clients },
	{ "refused", "_total", "counter", "Messages of clients that were refused.", refused },
	{ "recoveries", "_total", "counter", "Servers that took over.", recoveries },
};

static void write_states(const struct all *a)
{
	char name[64];

	for (size_t k = 0; k < sizeof(of_state) / sizeof(of_state[0]); k++) {
		family(a, of_state[k].name, of_state[k].type, of_state[k].help);
		snprintf(name, sizeof(name), "%s%s", of_state[k].name, of_state[k].suffix);
		for (unsigned int i = 0; i < a->nr; i++)
			sample(a, i, name, "", of_state[k].get(a->states[i]));
	}
}

/* ---- what is counted ---- */

#define COUNTER(field) offsetof(struct queue_counters, field)

static const struct metric {
	const char *name, *labels, *help; /* help only in a family's first */
	size_t field;
} counted[] = {
	{ "requests", ",op=\"read\",how=\"zero_copy\"", "Requests.",
	  COUNTER(read.zero_copy_requests) },
	{ "requests", ",op=\"read\",how=\"copied\"", NULL, COUNTER(read.copied_requests) },
	{ "requests", ",op=\"write\",how=\"zero_copy\"", NULL, COUNTER(write.zero_copy_requests) },
	{ "requests", ",op=\"write\",how=\"copied\"", NULL, COUNTER(write.copied_requests) },
	{ "io_bytes", ",op=\"read\",how=\"zero_copy\"", "Bytes read and written.",
	  COUNTER(read.zero_copy_bytes) },
	{ "io_bytes", ",op=\"read\",how=\"copied\"", NULL, COUNTER(read.copied_bytes) },
	{ "io_bytes", ",op=\"write\",how=\"zero_copy\"", NULL, COUNTER(write.zero_copy_bytes) },
	{ "io_bytes", ",op=\"write\",how=\"copied\"", NULL, COUNTER(write.copied_bytes) },
	{ "not_zero_copy", ",why=\"no_feature\"", "Requests that were copied, by why.",
	  COUNTER(copied_no_feature) },
	{ "not_zero_copy", ",why=\"nothing_registered\"", NULL,
	  COUNTER(copied_nothing_registered) },
	{ "not_zero_copy", ",why=\"other_memory\"", NULL, COUNTER(copied_other_memory) },
	{ "not_zero_copy", ",why=\"unknown_buffer\"", NULL, COUNTER(copied_unknown_buffer) },
	{ "not_zero_copy", ",why=\"misaligned\"", NULL, COUNTER(copied_misaligned) },
	{ "other_requests", ",op=\"flush\"", "Requests without data.", COUNTER(flushes) },
	{ "other_requests", ",op=\"discard\"", NULL, COUNTER(discards) },
	{ "other_requests", ",op=\"write_zeroes\"", NULL, COUNTER(write_zeroes) },
	{ "errors", "", "Requests that failed.", COUNTER(errors) },
};

static void write_counters(const struct all *a)
{
	const size_t nr = sizeof(counted) / sizeof(counted[0]);
	char name[64];

	for (size_t k = 0; k < nr; k++) {
		const struct metric *m = &counted[k];

		if (m->help)
			family(a, m->name, "counter", m->help);
		snprintf(name, sizeof(name), "%s_total", m->name);
		for (unsigned int i = 0; i < a->nr; i++)
			sample(a, i, name, m->labels,
			       counter_get(
				       (const counter_t *)((const char *)&a->sums[i] + m->field)));
	}
}

/* ---- how long it took ---- */

/* A bucket for each power of two is enough here. */
static void histogram(const struct all *a, unsigned int i, const char *op, const struct latency *l)
{
	char labels[64];
	uint64_t nr = 0;

	for (unsigned int k = 0; k < LATENCY_BUCKETS; k++) {
		nr += atomic_load_explicit(&l->buckets[k], memory_order_relaxed);
		if (k % 4 != 3 || k + 1 == LATENCY_BUCKETS)
			continue;
		snprintf(labels, sizeof(labels), ",op=\"%s\",le=\"%.9g\"", op,
			 (double)latency_bound(k + 1) / 1e9);
		sample(a, i, "request_seconds_bucket", labels, nr);
	}
	snprintf(labels, sizeof(labels), ",op=\"%s\",le=\"+Inf\"", op);
	sample(a, i, "request_seconds_bucket", labels, nr);
	snprintf(labels, sizeof(labels), ",op=\"%s\"", op);
	sample(a, i, "request_seconds_count", labels, nr);
	fprintf(a->out, "ublkzc_request_seconds_sum{device=\"ublkb%u\"%s} %.9f\n",
		a->states[i]->device, labels,
		(double)atomic_load_explicit(&l->ns, memory_order_relaxed) / 1e9);
}

static void write_latency(const struct all *a)
{
	family(a, "request_seconds", "histogram",
	       "From when the server takes a request to its answer.");
	for (unsigned int i = 0; i < a->nr; i++) {
		histogram(a, i, "read", &a->sums[i].read_time);
		histogram(a, i, "write", &a->sums[i].write_time);
	}
}

/* ---- where it goes ---- */

static void write_all(struct all *a)
{
	state_for_each(take_one, a);
	write_states(a);
	write_counters(a);
	write_latency(a);
	fputs("# EOF\n", a->out);
	for (unsigned int i = 0; i < a->nr; i++)
		state_close(a->states[i]);
}

/* Beside @path, and then in its place. */
static int replace(struct all *a, const char *path)
{
	char temporary[4096];
	int ret = 0;
	int fd;

	if (snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	a->out = fdopen(fd, "w");
	if (!a->out) {
		ret = -errno;
		close(fd);
	} else {
		write_all(a);
		if (fchmod(fd, 0644) < 0 || fflush(a->out) || ferror(a->out))
			ret = -errno;
		if (fclose(a->out) && !ret)
			ret = -errno;
	}
	if (!ret && rename(temporary, path) < 0)
		ret = -errno;
	if (ret)
		unlink(temporary);
	return ret;
}

/* @path: NULL, to @out. */
static int write_to(const struct devices *devices, const char *path, FILE *out)
{
	struct all a = { .out = out, .wanted = devices };
	int ret = 0;

	a.sums = calloc(DEVICES_MAX, sizeof(*a.sums));
	if (!a.sums)
		return log_error(-ENOMEM, "stat");
	if (path)
		ret = replace(&a, path);
	else
		write_all(&a);
	free(a.sums);
	return ret ? log_error(ret, "--openmetrics %s", path) : 0;
}

int openmetrics_write(const struct devices *devices, const char *path)
{
	return write_to(devices, strcmp(path, "-") == 0 ? NULL : path, stdout);
}

int openmetrics_print(const struct devices *devices, FILE *out)
{
	return write_to(devices, NULL, out);
}
