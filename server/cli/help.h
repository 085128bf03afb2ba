/* SPDX-License-Identifier: MIT */
/*
 * help.h - what the tables of command.h come out as.
 *
 * Text is made of lines of at most HELP_COLUMNS columns.
 */
#ifndef UBLKZC_SERVER_CLI_HELP_H
#define UBLKZC_SERVER_CLI_HELP_H

#include <stdio.h>

#include "command.h"

#define HELP_COLUMNS 80

/* "ublkzc VERB --help" */
void help_command(FILE *out, const struct command *command);

/* "ublkzc help" */
void help_all(FILE *out);

/* The manual's chapter on the verbs, for man(7).  docs/CMakeLists.txt puts it in its place. */
void help_manual(FILE *out);

/* Words of @text, wrapped; the first line begins at column @at, the others at @indent. */
void help_wrap(FILE *out, const char *text, unsigned int at, unsigned int indent);

#endif
