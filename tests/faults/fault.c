/* SPDX-License-Identifier: MIT */
/*
 * fault.c - die at a named moment (server/fault.h).
 *
 * UBLKZC_FAULT=NAME:FILE: the first server that comes to the moment NAME while FILE
 * exists removes it and is killed.  Only in ublkzc-faults.
 */
#include "server/fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fault_point(const char *name)
{
	const char *wanted = getenv("UBLKZC_FAULT");
	size_t len = strlen(name);

	if (wanted && strncmp(wanted, name, len) == 0 && wanted[len] == ':' &&
	    unlink(wanted + len + 1) == 0)
		raise(SIGKILL);
}
