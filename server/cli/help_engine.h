/* SPDX-License-Identifier: MIT */
/* help_engine.h - what an engine says of itself, for people. */
#ifndef UBLKZC_SERVER_CLI_HELP_ENGINE_H
#define UBLKZC_SERVER_CLI_HELP_ENGINE_H

#include <stdio.h>
#include <ublkzc/engine.h>

/* Its name, what it is, and its options; begins with an empty line. */
void help_engine(FILE *out, const struct ublkzc_engine *engine);

#endif
