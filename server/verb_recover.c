/* SPDX-License-Identifier: MIT */
/*
 * verb_recover.c - "recover": a server for a device that has none.
 *
 * A server that dies is replaced by its keeper; this is for devices whose keeper died as
 * well.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "sizes.h"
#include "state.h"
#include "verbs.h"

static const char usage_text[] = "usage: ublkzc recover [--foreground] -n ID\n";

struct wanted {
	unsigned int device;
	bool foreground;
};

/* 0, or -EINVAL having said why, or 1 after --help. */
static int parse(int argc, char **argv, struct wanted *ret)
{
	static const struct option longs[] = {
		{ "number", required_argument, NULL, 'n' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	uint64_t device = UINT64_MAX;
	int c;

	*ret = (struct wanted){ 0 };
	while ((c = getopt_long(argc, argv, "n:fh", longs, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage_text, stdout);
			return 1;
		}
		if (c == 'n' && number_parse(optarg, 0, 1048575, &device))
			return log_error(-EINVAL, "-n '%s': not a device id", optarg);
		if (c == 'f')
			ret->foreground = true;
		else if (c != 'n')
			return -EINVAL;
	}
	if (optind < argc || device == UINT64_MAX) {
		fputs(usage_text, stderr);
		return -EINVAL;
	}
	ret->device = (unsigned int)device;
	return 0;
}

static int open_state(unsigned int device, const struct state **ret)
{
	int err = state_open(device, ret);

	if (err == -ENOENT)
		return log_error(err, "no server of ublkzc's had a device %u", device);
	if (err == -EBADMSG)
		return log_error(err, "device %u was served by another version of ublkzc", device);
	return err ? log_error(err, "the state of device %u", device) : 0;
}

int verb_recover(int argc, char **argv)
{
	const struct state *state;
	struct wanted w;
	int ret = parse(argc, argv, &w);

	if (ret)
		return ret < 0 ? EXIT_USAGE : 0;
	if (open_state(w.device, &state))
		return EXIT_FAILURE;
	if (state_alive(state)) {
		log_line(LOG_ERROR, "device %u has a server, process %d, or its keeper, process %d",
			 w.device, state->pid, state->keeper); /* for people */
		return EXIT_FAILURE;
	}
	state_close(state);
	return recover_by_hand(w.device, w.foreground);
}
