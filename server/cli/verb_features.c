/* SPDX-License-Identifier: MIT */
/* verb_features.c - "features": what the running kernel's ublk driver can do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "common/log.h"
#include "server/device/ctrl.h"
#include "server/device/features.h"
#include "command.h"
#include "output.h"
#include "verbs.h"

static int ask_driver(uint64_t *ret)
{
	struct ctrl ctrl;
	int err = ctrl_open(&ctrl);

	if (err)
		return err;
	err = ctrl_get_features(&ctrl, ret);
	ctrl_close(&ctrl);
	if (err)
		log_error(err, "the driver does not tell its features (Linux before 6.5)");
	return err;
}

static void describe_driver(char *text, size_t size)
{
	char version[64];
	struct utsname kernel;

	uname(&kernel);
	driver_version(version, sizeof(version));
	driver_describe(text, size, version, kernel.release);
}

static void features_text(uint64_t features)
{
	char driver[160];

	describe_driver(driver, sizeof(driver));
	printf("%s\n", driver);
	for (unsigned int bit = 0; bit < 64; bit++) {
		const char *name = feature_name(bit);

		if (!(features >> bit & 1))
			continue;
		if (name)
			printf("%s\n", name);
		else
			printf("(bit %u, unknown to this version)\n", bit);
	}
}

static int features_json(uint64_t features)
{
	json_t *list = json_array();

	for (unsigned int bit = 0; bit < 64; bit++) {
		const char *name = feature_name(bit);

		if (features >> bit & 1)
			json_array_append_new(
				list, json_pack("{s:i, s:s?}", "bit", (int)bit, "name", name));
	}
	return json_print("features", list);
}

static const struct flag flags[] = { FLAG_JSON('j') };

static int features(const struct command *command, int argc, char **argv)
{
	struct command_line line;
	uint64_t bits;
	bool json = false;
	int key;

	command_begin(&line, command, argc, argv);
	while ((key = command_next(&line)) > 0)
		json = true;
	if (key)
		return command_status(key);
	if (ask_driver(&bits))
		return EXIT_FAILURE;
	if (json)
		return features_json(bits) ? EXIT_FAILURE : 0;
	features_text(bits);
	return 0;
}

const struct command command_features = {
	.name = "features",
	.summary = "what the running kernel's ublk driver can do",
	FLAGS(flags),
	.run = features,
};
