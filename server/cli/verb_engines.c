/* SPDX-License-Identifier: MIT */
/* verb_engines.c - "engines": what -t may be, and its options. */
#include <stdio.h>
#include <stdlib.h>

#include "server/targets/engines.h"
#include "command.h"
#include "help_engine.h"
#include "output.h"
#include "verbs.h"

/* One that cannot be used is no reason to hide the others. */
static void engine_text(const char *file, const struct ublkzc_engine *engine, const char *why,
			void *arg)
{
	bool *broken = arg;

	if (engine) {
		help_engine(stdout, engine);
		return;
	}
	*broken = true;
	fprintf(stderr, "ublkzc engines: %s: %s\n", file, why);
}

static json_t *options_json(const struct ublkzc_option *options)
{
	json_t *list = json_array();

	for (const struct ublkzc_option *o = options; o && o->name; o++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", o->name, "value",
						      o->value, "help", o->help));
	return list;
}

static void engine_json(const char *file, const struct ublkzc_engine *e, const char *why, void *arg)
{
	json_t *path = file ? json_text(file) : json_null();
	json_t *list = arg;

	if (!e) {
		json_array_append_new(list, json_pack("{s:o, s:s}", "file", path, "error", why));
		return;
	}
	json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:s?, s:b, s:b, s:o}", "name",
					      e->name, "summary", e->summary, "file", path,
					      "argument", e->argument, "takes_size",
					      (e->flags & UBLKZC_TAKES_SIZE) != 0, "touches_data",
					      (e->flags & UBLKZC_TOUCHES_DATA) != 0, "options",
					      options_json(e->options)));
}

static const struct flag flags[] = { FLAG_JSON('j') };

static int engines(const struct command *command, int argc, char **argv)
{
	struct command_line line;
	bool broken = false;
	bool json = false;
	json_t *list;
	int key;

	command_begin(&line, command, argc, argv);
	while ((key = command_next(&line)) > 0)
		json = true;
	if (key)
		return command_status(key);
	if (!json) {
		printf("Engines are built in, or shared objects in %s.\n", engine_directory());
		engine_for_each(engine_text, &broken);
		return broken ? EXIT_FAILURE : 0;
	}
	list = json_array();
	engine_for_each(engine_json, list);
	return json_print("engines", list) ? EXIT_FAILURE : 0;
}

const struct command command_engines = {
	.name = "engines",
	.summary = "where the bytes of a device can live, and the options of each",
	.about = "What ublkzc add -t takes. ublkzc-engine(3) tells how to write one.",
	FLAGS(flags),
	.run = engines,
};
