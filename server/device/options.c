/* SPDX-License-Identifier: MIT */
/* options.c - see options.h. */
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Returns the end of the name, which goes to @name; NULL: it has none. */
static char *split(const char *text, char *name, struct ublkzc_setting *ret)
{
	const char *equals = strchr(text, '=');
	size_t len = equals ? (size_t)(equals - text) : 0;

	if (!equals)
		return NULL;
	memcpy(name, text, len);
	name[len] = '\0';
	*ret = (struct ublkzc_setting){ .name = name, .value = equals + 1 };
	return name + len + 1;
}

/* The names are behind the settings, so that all is one piece. */
static int make_settings(const struct options *o, struct ublkzc_setting **ret)
{
	size_t size = (o->nr_settings + 1) * sizeof(**ret);
	struct ublkzc_setting *settings;
	char *names;

	for (unsigned int i = 0; i < o->nr_settings; i++)
		size += strlen(o->settings[i]) + 1;
	settings = malloc(size);
	if (!settings)
		return -ENOMEM;
	names = (char *)(settings + o->nr_settings + 1);
	for (unsigned int i = 0; names && i < o->nr_settings; i++)
		names = split(o->settings[i], names, &settings[i]);
	if (!names) {
		free(settings);
		return -EINVAL;
	}
	*ret = settings;
	return 0;
}

int options_make_target(const struct options *o, struct ublkzc_target *ret)
{
	struct ublkzc_setting *settings = NULL;
	int err = make_settings(o, &settings);

	*ret = (struct ublkzc_target){
		.path = o->path,
		.settings = settings,
		.nr_settings = err ? 0 : o->nr_settings,
		.nr_queues = o->nr_queues,
		.depth = o->depth,
		.size = o->size,
		.block_size = o->block_size,
		.max_io = o->max_io,
		.read_only = o->read_only,
		.fd = -1,
	};
	return err;
}

void options_free_target(struct ublkzc_target *target)
{
	free((struct ublkzc_setting *)target->settings);
	target->settings = NULL;
	target->nr_settings = 0;
}
