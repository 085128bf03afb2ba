/* SPDX-License-Identifier: MIT */
/* verb_list.c - "list": the devices of ublkzc's servers, dead ones too. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "server/life/state.h"
#include "command.h"
#include "output.h"
#include "verbs.h"

struct listing {
	bool json, bytes;
	struct table table;
	json_t *devices;
	unsigned int dead;
};

static void list_json(struct listing *l, const struct state *s)
{
	json_array_append_new(
		l->devices,
		json_pack("{s:I, s:i, s:b, s:s, s:o, s:I, s:i, s:i, s:i, s:b, s:b}", "device",
			  (json_int_t)s->device, "pid", s->pid, "alive", state_alive(s), "target",
			  s->target, "path", json_text(s->path), "size", (json_int_t)s->size,
			  "block_size", (int)s->block_size, "queues", (int)s->nr_queues, "depth",
			  (int)s->depth, "read_only", s->read_only, "shmem_zc", s->shmem_zc));
}

static void list_row(struct listing *l, const struct state *s)
{
	char size[OUTPUT_SIZE];
	bool alive = state_alive(s);

	l->dead += !alive;
	table_cellf(&l->table, "/dev/ublkb%u", s->device);
	table_cell(&l->table, s->target);
	table_cell(&l->table, size_text(size, s->size, l->bytes));
	table_cellf(&l->table, "%u", s->block_size);
	table_cellf(&l->table, "%u x %u", s->nr_queues, s->depth);
	table_cell(&l->table, s->read_only ? "ro" : "rw");
	table_cell(&l->table, s->shmem_zc ? "zero-copy" : "copy only");
	table_cell(&l->table, alive ? "alive" : "dead");
	table_cell(&l->table, s->path);
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
		list_row(l, state);
	state_close(state);
	return 0;
}

static int list_all(struct listing *l)
{
	static const char *const headings[] = { "DEVICE", "TARGET", "SIZE",   "BLOCK", "QUEUES",
						"RW",	  "MEMORY", "SERVER", "PATH" };
	int ret;

	l->devices = l->json ? json_array() : NULL;
	table_begin(&l->table, headings, sizeof(headings) / sizeof(headings[0]), 1U << 2 | 1U << 3);
	ret = state_for_each(list_each, l);
	if (!l->json && l->table.nr == l->table.columns)
		fputs("ublkzc: no device (ublkzc add makes one)\n", stderr);
	table_end(&l->table);
	if (l->json && json_print("devices", l->devices))
		ret = -ENOMEM;
	if (l->dead)
		fputs("ublkzc: a device whose server is dead waits for another: ublkzc recover "
		      "DEVICE\n",
		      stderr);
	return ret;
}

static const struct flag flags[] = {
	{ 'b', "bytes", WORD_NONE, NULL, "sizes in bytes" },
	FLAG_JSON('j'),
};

static int list(const struct command *command, int argc, char **argv)
{
	struct listing l = { 0 };
	struct command_line line;
	int key;

	command_begin(&line, command, argc, argv);
	while ((key = command_next(&line)) > 0)
		*(key == 'j' ? &l.json : &l.bytes) = true;
	if (key)
		return command_status(key);
	return list_all(&l) ? EXIT_FAILURE : 0;
}

const struct command command_list = {
	.name = "list",
	.summary = "the devices, their servers and what is behind them",
	FLAGS(flags),
	.run = list,
};
