/* SPDX-License-Identifier: MIT */
/*
 * verb_recover.c - "recover" and "upgrade": another server for a live device.
 *
 * A server that dies is replaced by its keeper; recover is for devices whose
 * keeper died as well.  upgrade lets the keeper do its work: it kills the server,
 * and what the keeper starts then is the program that is installed now.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/log.h"
#include "sizes.h"
#include "state.h"
#include "verbs.h"

#define UPGRADE_DEADLINE_MS 60000

static const char recover_usage[] = "usage: ublkzc recover [--foreground] -n ID\n";
static const char upgrade_usage[] = "usage: ublkzc upgrade -n ID\n";

struct wanted {
	unsigned int device;
	bool foreground;
};

/* 0, or -EINVAL having said why, or 1 after --help. */
static int parse(int argc, char **argv, const char *usage, bool may_stay, struct wanted *ret)
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
	while ((c = getopt_long(argc, argv, may_stay ? "n:fh" : "n:h", longs, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return 1;
		}
		if (c == 'n' && number_parse(optarg, 0, 1048575, &device))
			return log_error(-EINVAL, "-n '%s': not a device id", optarg);
		if (c == 'f' && may_stay)
			ret->foreground = true;
		else if (c != 'n')
			return -EINVAL;
	}
	if (optind < argc || device == UINT64_MAX) {
		fputs(usage, stderr);
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
	int ret = parse(argc, argv, recover_usage, true, &w);

	if (ret)
		return ret < 0 ? EXIT_USAGE : 0;
	if (open_state(w.device, &state))
		return EXIT_FAILURE;
	if (state_alive(state)) {
		log_line(LOG_ERROR, "device %u has a server, process %d, or its keeper, process %d",
			 w.device, state->pid, state->keeper);
		return EXIT_FAILURE;
	}
	state_close(state);
	return recover_by_hand(w.device, w.foreground);
}

static bool replaced(const struct state *state, uint32_t before)
{
	return *(const volatile uint32_t *)&state->recoveries != before;
}

static int upgrade(const struct state *state)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	uint32_t before = state->recoveries;

	if (!state_alive(state) || !state->keeper || kill(state->keeper, 0) < 0)
		return log_error(-ESRCH, "device %u has no keeper that would start the new server",
				 state->device);
	if (kill(state->pid, SIGKILL) < 0)
		return log_error(-errno, "end process %d", state->pid);
	for (int ms = 0; ms < UPGRADE_DEADLINE_MS; ms += 10) {
		if (replaced(state, before))
			return 0;
		nanosleep(&pause, NULL);
	}
	return log_error(-ETIMEDOUT, "device %u: no new server; " STATE_DIR "/ublkb%u.log says why",
			 state->device, state->device);
}

int verb_upgrade(int argc, char **argv)
{
	const struct state *state;
	struct wanted w;
	int ret = parse(argc, argv, upgrade_usage, false, &w);

	if (ret)
		return ret < 0 ? EXIT_USAGE : 0;
	if (open_state(w.device, &state))
		return EXIT_FAILURE;
	ret = upgrade(state);
	state_close(state);
	return ret ? EXIT_FAILURE : 0;
}
