/* SPDX-License-Identifier: MIT */
/* openmetrics.h - "stat --openmetrics": the counters of all devices, for monitoring. */
#ifndef UBLKZC_SERVER_CLI_OPENMETRICS_H
#define UBLKZC_SERVER_CLI_OPENMETRICS_H

#include <stdio.h>

#include "command.h"

/*
 * Of @devices, or of all, to @path, which is replaced whole, so that a reader never sees half of
 * it; "-" is standard output.  0, or a negative errno, said.
 */
int openmetrics_write(const struct devices *devices, const char *path);

/* The same to @out, which may fail.  0, or -ENOMEM, said. */
int openmetrics_print(const struct devices *devices, FILE *out);

#endif
