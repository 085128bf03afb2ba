/* SPDX-License-Identifier: MIT */
/* options.c - see options.h. */
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int split(const char *text, struct ublkzc_setting *ret)
{
	char *name = strdup(text);
	char *equals;

	if (!name)
		return -ENOMEM;
	equals = strchr(name, '=');
	if (!equals) {
		free(name);
		return -EINVAL;
	}
	*equals = '\0';
	*ret = (struct ublkzc_setting){ .name = name, .value = equals + 1 };
	return 0;
}

int options_make_target(const struct options *o, struct ublkzc_target *ret)
{
	struct ublkzc_setting *settings = calloc(OPTIONS_SETTINGS_MAX, sizeof(*settings));
	int err = settings ? 0 : -ENOMEM;

	*ret = (struct ublkzc_target){
		.path = o->path,
		.settings = settings,
		.nr_queues = o->nr_queues,
		.depth = o->depth,
		.size = o->size,
		.block_size = o->block_size,
		.max_io = o->max_io,
		.read_only = o->read_only,
		.fd = -1,
	};
	for (unsigned int i = 0; !err && i < o->nr_settings; i++) {
		err = split(o->settings[i], &settings[i]);
		ret->nr_settings += !err;
	}
	if (err)
		options_free_target(ret);
	return err;
}

void options_free_target(struct ublkzc_target *target)
{
	for (unsigned int i = 0; i < target->nr_settings; i++)
		free((char *)target->settings[i].name);
	free((struct ublkzc_setting *)target->settings);
	target->settings = NULL;
	target->nr_settings = 0;
}
