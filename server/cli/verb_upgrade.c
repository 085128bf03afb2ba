/* SPDX-License-Identifier: MIT */
/*
 * verb_upgrade.c - "upgrade": the installed program takes over a live device.
 *
 * The server is asked, and does it (handover.h); nobody is killed.  The answer comes over the
 * same connection, from whoever serves in the end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/state.h"
#include "admin.h"
#include "command.h"
#include "verbs.h"

/* More than trying, ebbing, taking over and probation can take together. */
#define UPGRADE_DEADLINE_MS 300000

/* The reason says it all, but for a program that cannot be executed. */
static int explain(unsigned int device, const struct wire_reply *reply)
{
	bool missing = reply->reason == WIRE_PROGRAM_MISSING;

	if (reply->reason == WIRE_NOT_ALLOWED) {
		log_line(LOG_ERROR, "/dev/ublkb%u: %s", device, wire_reason_text(reply->reason));
		return EXIT_FAILURE;
	}
	log_line(LOG_ERROR,
		 "/dev/ublkb%u goes on with the program it had: %s%s%s; " STATE_DIR
		 "/ublkb%u.log may say more",
		 device, wire_reason_text(reply->reason), missing ? ": " : "",
		 missing ? strerror(-reply->status) : "", device);
	return EXIT_FAILURE;
}

static int hand_over(unsigned int device)
{
	struct wire_request req;
	struct wire_reply reply;
	int fd = admin_connect(device);
	int err;

	if (fd == -ETIMEDOUT) {
		log_error(fd, "/dev/ublkb%u: its server takes no connections", device);
		return EXIT_FAILURE;
	}
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
			  "stat %u)",
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

static const struct flag flags[] = { FLAG_DEVICE };

static int upgrade(const struct command *command, int argc, char **argv)
{
	unsigned int device;
	int ret = command_only_device(command, argc, argv, &device);

	return ret ? command_status(ret) : hand_over(device);
}

const struct command command_upgrade = {
	.name = "upgrade",
	.summary = "let the installed program take over a live device",
	.operands = "DEVICE",
	.operand = WORD_DEVICE,
	.about = "The installed program is tried first; if it works, the server hands over to it, "
		 "and I/O pauses. If it does not, or dies in its first seconds, the server that "
		 "was there goes on, and the command fails and says why.",
	FLAGS(flags),
	.run = upgrade,
};
