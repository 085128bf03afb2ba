/* SPDX-License-Identifier: MIT */
/*
 * verb_upgrade.c - "upgrade": the installed program takes over a live device.
 *
 * The server is asked, and does it (handover.h); nobody is killed.  The answer comes over the
 * same connection, from whoever serves in the end.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin.h"
#include "common/log.h"
#include "sizes.h"
#include "state.h"
#include "verbs.h"

/* More than trying, ebbing, taking over and probation can take together. */
#define UPGRADE_DEADLINE_MS 300000

static const char usage_text[] =
	"usage: ublkzc upgrade -n ID\n"
	"\n"
	"Try the installed program; if it works, the server hands over to it. If not, or if\n"
	"it dies in its first seconds, the server that was there goes on.\n";

/* The reason says it all, but for a program that cannot be executed. */
static int explain(unsigned int device, const struct wire_reply *reply)
{
	bool missing = reply->reason == WIRE_PROGRAM_MISSING;

	log_line(LOG_ERROR,
		 "/dev/ublkb%u goes on with the program it had: %s%s%s; " STATE_DIR
		 "/ublkb%u.log may say more",
		 device, wire_reason_text(reply->reason), missing ? ": " : "",
		 missing ? strerror(-reply->status) : "", device);
	return EXIT_FAILURE;
}

static int upgrade(unsigned int device)
{
	struct wire_request req;
	struct wire_reply reply;
	int fd = admin_connect(device);
	int err;

	if (fd < 0) {
		log_error(fd, "device %u has no server that could hand over (ublkzc list)", device);
		return EXIT_FAILURE;
	}
	wire_request_init(&req, WIRE_UPGRADE, 1);
	err = admin_ask_on(fd, &req, UPGRADE_DEADLINE_MS, &reply);
	close(fd);
	if (err == -EPIPE)
		log_error(err,
			  "/dev/ublkb%u: the server died before it could hand over (ublkzc "
			  "stat -n %u)",
			  device, device);
	else if (err)
		log_error(err,
			  "/dev/ublkb%u: no answer in %d seconds; " STATE_DIR "/ublkb%u.log may "
			  "say why",
			  device, UPGRADE_DEADLINE_MS / 1000, device);
	if (err)
		return EXIT_FAILURE;
	return reply.status ? explain(device, &reply) : 0;
}

int verb_upgrade(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "number", required_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	uint64_t device = UINT64_MAX;
	int c;

	while ((c = getopt_long(argc, argv, "n:h", longs, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage_text, stdout);
			return 0;
		}
		if (c == 'n' && number_parse(optarg, 0, 1048575, &device) == 0)
			continue;
		if (c == 'n')
			log_line(LOG_ERROR, "-n '%s': not a device id", optarg);
		return EXIT_USAGE;
	}
	if (optind < argc || device == UINT64_MAX) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	return upgrade((unsigned int)device);
}
