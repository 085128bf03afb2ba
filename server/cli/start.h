/* SPDX-License-Identifier: MIT */
/*
 * start.h - what starts a server, for the verbs that do: a new one, or one for a device whose
 * server died; in the background or not; with a keeper or alone.
 */
#ifndef UBLKZC_SERVER_CLI_START_H
#define UBLKZC_SERVER_CLI_START_H

#include <stdbool.h>

#include "server/life/manager.h"
#include "add_options.h"
#include "command.h"

struct start {
	struct options options;
	int argc; /* the verb and its options, for successors */
	char **argv;
	bool background;
	int pipe_fd;  /* background: to the verb that waits */
	int recovers; /* number of a device to take over by hand; -1: a new one, or what was left */
	struct manager_fd *left; /* by a keeper that died; borrowed */
	unsigned int nr_left;
};

/* From a command line that may be an older server's.  0; else *ret_status is what to end with. */
int start_prepare(struct start *s, const struct command *command, int argc, char **argv,
		  int *ret_status);

/* From the command line of whoever served @device.  0 or a negative errno. */
int start_prepare_again(struct start *s, unsigned int device);

/* Can it be, here and now?  Who has typed it is told.  0, or the exit status to end with. */
int start_possible(const struct command *command, const struct start *s);

/* Returns when the server has stopped; its exit status. */
int start_run(struct start *s);

/* Returns when the device is live. */
int start_in_background(struct start *s);

/* The process is @device's server: for ps and top. */
void start_title(const struct start *s, unsigned int device);

/* A server for @device, which nobody serves, by hand: without records. */
int start_recover(unsigned int device, bool foreground);

/* ---- the command lines of add and serve ---- */

#define START_TARGETS                                                                              \
	"Engines: null stores nothing; mem is a RAM disk of --size; file is the regular file or "  \
	"block device PATH, by direct I/O when it can; others are shared objects, which ublkzc "   \
	"engines lists. With -t ENGINE before --help its options follow."

#endif
