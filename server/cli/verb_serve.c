/* SPDX-License-Identifier: MIT */
/*
 * verb_serve.c - "serve": in the foreground, under a service manager.
 *
 * Started again by one, because keeper and server have died, it goes on with the device, which
 * waits: with the records and descriptors that the keeper left with the manager, or without.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "server/device/device.h"
#include "server/life/keeper.h"
#include "server/life/lock.h"
#include "start.h"
#include "verbs.h"

/* The driver has the device, it can be taken over, and nobody serves it. */
static bool waits_for_server(unsigned int device)
{
	int lock = lock_open(device);
	bool is_free = lock >= 0 && lock_held(lock) == 0;

	if (lock >= 0)
		close(lock);
	return is_free && device_is_recoverable(device);
}

static int serve_again(unsigned int device, struct manager_fd *left, unsigned int nr_left)
{
	struct start s;
	int ret = keeper_left(left, nr_left);

	if (ret == (int)device) {
		if (start_prepare_again(&s, device))
			return EXIT_FAILURE;
		s.left = left;
		s.nr_left = nr_left;
		return start_run(&s);
	}
	log_line(LOG_WARN,
		 "device %u waits for a server, and %s: its clients are copied until they open "
		 "their files again",
		 device,
		 ret == -EPROTO ? "its records are another version's"
				: "there are no records of it");
	keeper_forget_left(left, nr_left);
	return start_recover(device, true);
}

static int serve(const struct command *command, int argc, char **argv)
{
	unsigned int nr_left;
	struct manager_fd *left = manager_take(&nr_left);
	struct start s;
	int status;
	int device;

	if (start_prepare(&s, command, argc, argv, &status))
		return status;
	device = s.options.device;
	if (device >= 0 && manager_listens() && waits_for_server((unsigned int)device))
		return serve_again((unsigned int)device, left, nr_left);
	keeper_forget_left(left, nr_left); /* of a device that is no more */
	status = start_possible(command, &s);
	return status ? status : start_run(&s);
}

const struct command command_serve = {
	.name = "serve",
	.summary = "the same in the foreground, for a service manager",
	.operands = "[PATH]",
	.operand = WORD_FILE,
	.about = "Until SIGTERM or SIGINT. A service manager that set NOTIFY_SOCKET is told when "
		 "the device is live, and given what is needed to go on when keeper and server "
		 "have died: started again by it, with the same -n, serve takes the device over "
		 "that waits, as it was added.\n" START_TARGETS,
	ADD_FLAGS,
	.run = serve,
};
