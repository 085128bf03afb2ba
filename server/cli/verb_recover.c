/* SPDX-License-Identifier: MIT */
/*
 * verb_recover.c - "recover": a server for a device that has none.
 *
 * A server that dies is replaced by its keeper; this is for devices whose keeper died as
 * well.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "server/life/state.h"
#include "command.h"
#include "start.h"
#include "verbs.h"

static int open_state(unsigned int device, const struct state **ret)
{
	int err = state_open(device, ret);

	if (err == -ENOENT)
		return log_error(err, "no server of ublkzc's had a device %u", device);
	if (err == -EBADMSG)
		return log_error(err, "device %u was served by another version of ublkzc", device);
	return err ? log_error(err, "the state of device %u", device) : 0;
}

static const struct flag flags[] = {
	FLAG_DEVICE,
	{ 'f', "foreground", WORD_NONE, NULL, "serve until SIGTERM, for a service manager" },
};

static int parse(struct command_line *line, struct devices *devices, unsigned int *device,
		 bool *foreground)
{
	int key;

	while ((key = command_next(line)) > 0) {
		if (key == 'n' && devices_add(devices, line->command, line->value))
			return LINE_BAD;
		*foreground |= key == 'f';
	}
	return key ? key : devices_one(devices, line, device);
}

static int serve_again(unsigned int device, bool foreground)
{
	const struct state *state;

	if (open_state(device, &state))
		return EXIT_FAILURE;
	if (state_alive(state)) {
		log_line(LOG_ERROR, "device %u has a server, process %d, or its keeper, process %d",
			 device, state->pid, state->keeper); /* for people */
		state_close(state);
		return EXIT_FAILURE;
	}
	state_close(state);
	return start_recover(device, foreground);
}

static int recover(const struct command *command, int argc, char **argv)
{
	struct devices devices = { 0 };
	struct command_line line;
	unsigned int device = 0;
	bool foreground = false;
	int ret;

	command_begin(&line, command, argc, argv);
	ret = parse(&line, &devices, &device, &foreground);
	ret = ret ? command_status(ret) : serve_again(device, foreground);
	devices_free(&devices);
	return ret;
}

const struct command command_recover = {
	.name = "recover",
	.summary = "serve a device whose server and keeper died",
	.operands = "DEVICE",
	.operand = WORD_DEVICE,
	.about = "As they did: the command line is kept in /run/ublkzc/ublkbN.args. A server "
		 "that dies alone is replaced by its keeper.",
	FLAGS(flags),
	.run = recover,
};
