/* SPDX-License-Identifier: MIT */
/* add_options.h - the command line of "ublkzc add" and "ublkzc serve". */
#ifndef UBLKZC_SERVER_CLI_ADD_OPTIONS_H
#define UBLKZC_SERVER_CLI_ADD_OPTIONS_H

#include "server/device/options.h"
#include "command.h"

#define NR_ADD_FLAGS 22U
extern const struct flag add_flags[NR_ADD_FLAGS];
#define ADD_FLAGS .flags = add_flags, .nr_flags = NR_ADD_FLAGS

/*
 * Parse @argv[1..] of @command, whose flags are these.  0, LINE_BAD or LINE_HELP.  @ret points
 * into @argv.
 */
int add_options_parse(const struct command *command, int argc, char **argv, struct options *ret);

/* Of a new device: can this machine have it?  0, LINE_BAD, or an error of
 * the driver's. */
int add_options_possible(const struct command *command, const struct options *o);

#endif
