/* SPDX-License-Identifier: MIT */
/* verb_list.c - "list" and "features". */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "common/log.h"
#include "ctrl.h"
#include "features.h"
#include "json.h"
#include "state.h"
#include "verbs.h"

struct listing {
	bool json;
	unsigned int nr;
};

static void list_json(struct listing *l, const struct state *s)
{
	printf("%s{\"device\":%u,\"pid\":%d,\"alive\":%s,\"target\":\"%s\",\"path\":",
	       l->nr ? "," : "", s->device, s->pid, state_alive(s) ? "true" : "false", s->target);
	json_string(stdout, s->path);
	printf(",\"size\":%llu,\"block_size\":%u,\"queues\":%u,\"depth\":%u,\"read_only\":%s,"
	       "\"shmem_zc\":%s}",
	       (unsigned long long)s->size, s->block_size, s->nr_queues, s->depth,
	       s->read_only ? "true" : "false", s->shmem_zc ? "true" : "false");
}

static void list_text(const struct state *s)
{
	printf("/dev/ublkb%u: %s%s%s, %llu bytes in blocks of %u, %u queue%s of %u%s, %s%s\n",
	       s->device, s->target, s->path[0] ? " " : "", s->path, (unsigned long long)s->size,
	       s->block_size, s->nr_queues, s->nr_queues == 1 ? "" : "s", s->depth,
	       s->read_only ? ", read-only" : "",
	       s->shmem_zc ? "shared-memory zero copy" : "copy only",
	       state_alive(s) ? "" : ", its server is dead (ublkzc del removes it)");
}

static int list_each(unsigned int device, void *arg)
{
	struct listing *l = arg;
	const struct state *state;

	if (state_open(device, &state))
		return 0; /* gone meanwhile, or another version's */
	if (l->json)
		list_json(l, state);
	else
		list_text(state);
	l->nr++;
	state_close(state);
	return 0;
}

int verb_list(int argc, char **argv)
{
	struct listing l = { 0 };
	int ret;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			l.json = true;
		} else {
			fputs("usage: ublkzc list [--json]\n", stderr);
			return strcmp(argv[i], "--help") == 0 ? 0 : EXIT_USAGE;
		}
	}
	if (l.json)
		printf("[");
	ret = state_for_each(list_each, &l);
	if (l.json)
		printf("]\n");
	return ret ? EXIT_FAILURE : 0;
}

static void print_driver(void)
{
	char version[64], text[160];
	struct utsname kernel;

	uname(&kernel);
	driver_version(version, sizeof(version));
	driver_describe(text, sizeof(text), version, kernel.release);
	printf("%s\n", text);
}

int verb_features(int argc, char **argv)
{
	uint64_t features;
	struct ctrl ctrl;
	int ret;

	if (argc > 1) {
		fputs("usage: ublkzc features\n", stderr);
		return strcmp(argv[1], "--help") == 0 ? 0 : EXIT_USAGE;
	}
	if (ctrl_open(&ctrl))
		return EXIT_FAILURE;
	ret = ctrl_get_features(&ctrl, &features);
	ctrl_close(&ctrl);
	if (ret) {
		log_error(ret, "the driver does not tell its features (Linux before 6.5)");
		return EXIT_FAILURE;
	}
	print_driver();
	for (unsigned int bit = 0; bit < 64; bit++) {
		const char *name = feature_name(bit);

		if (!(features >> bit & 1))
			continue;
		if (name)
			printf("%s\n", name);
		else
			printf("(bit %u, unknown to this version)\n", bit);
	}
	return 0;
}
