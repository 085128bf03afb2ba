/* SPDX-License-Identifier: MIT */
/* devices.c - the devices that a command line names; see command.h. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "sizes.h"

int device_parse(const char *text, unsigned int *ret)
{
	static const char *const prefixes[] = { "/dev/ublkb", "ublkb", "" };
	uint64_t n;

	for (unsigned int i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t len = strlen(prefixes[i]);

		if (strncmp(text, prefixes[i], len) != 0)
			continue;
		if (number_parse(text + len, 0, DEVICE_MAX, &n))
			return -EINVAL;
		*ret = (unsigned int)n;
		return 0;
	}
	return -EINVAL;
}

int devices_add(struct devices *devices, const struct command *command, const char *text)
{
	unsigned int *ids;
	unsigned int id;

	if (device_parse(text, &id))
		return command_error(command, "'%s' is not a device: 0, ublkb0 and /dev/ublkb0 are",
				     text);
	for (unsigned int i = 0; i < devices->nr; i++)
		if (devices->ids[i] == id)
			return 0;
	ids = realloc(devices->ids, (devices->nr + 1) * sizeof(*ids));
	if (!ids)
		return command_error(command, "no memory");
	devices->ids = ids;
	ids[devices->nr++] = id;
	return 0;
}

int devices_add_operands(struct devices *devices, const struct command_line *line)
{
	for (int i = 0; i < line->nr_operands; i++)
		if (devices_add(devices, line->command, line->operands[i]))
			return LINE_BAD;
	return 0;
}

int devices_one(struct devices *devices, const struct command_line *line, unsigned int *ret)
{
	int err = devices_add_operands(devices, line);

	if (err)
		return err;
	if (devices->nr == 1 && devices->ids) {
		*ret = devices->ids[0];
		return 0;
	}
	if (!devices->nr)
		return command_error(line->command, "which device?");
	return command_error(line->command, "one device at a time, not %u", devices->nr);
}

void devices_free(struct devices *devices)
{
	free(devices->ids);
	*devices = (struct devices){ 0 };
}

static int read_device(struct command_line *line, struct devices *devices, unsigned int *ret)
{
	int key;

	while ((key = command_next(line)) > 0)
		if (devices_add(devices, line->command, line->value))
			return LINE_BAD;
	return key ? key : devices_one(devices, line, ret);
}

int command_only_device(const struct command *command, int argc, char **argv, unsigned int *ret)
{
	struct devices devices = { 0 };
	struct command_line line;
	int err;

	command_begin(&line, command, argc, argv);
	err = read_device(&line, &devices, ret);
	devices_free(&devices);
	return err;
}
