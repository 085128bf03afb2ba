/* SPDX-License-Identifier: MIT */
/* stat_interval.h - "stat --interval": what happens now, again and again, as iostat does. */
#ifndef UBLKZC_SERVER_CLI_STAT_INTERVAL_H
#define UBLKZC_SERVER_CLI_STAT_INTERVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "command.h"

struct stat_interval {
	uint64_t seconds; /* between two reports */
	uint64_t count;	  /* of reports; 0: until somebody ends us */
	bool bytes, json;
};

/* Of @devices, or of all.  0, or a negative errno, said. */
int stat_interval(const struct devices *devices, const struct stat_interval *w);

#endif
