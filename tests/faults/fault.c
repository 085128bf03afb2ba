/* SPDX-License-Identifier: MIT */
/*
 * fault.c - die at a named moment (server/life/fault.h).
 *
 * UBLKZC_FAULT=NAME:FILE: the first server that comes to the moment NAME while FILE
 * exists removes it and is killed.  A number in FILE: only that many ms after it came there
 * first.  Only in ublkzc-faults.
 */
#include "server/life/fault.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static bool is_time(const char *path)
{
	static long long first;
	FILE *f = fopen(path, "re");
	int ms = 0;

	if (!first)
		first = now_ms();
	if (!f)
		return false;
	if (fscanf(f, "%d", &ms) != 1)
		ms = 0;
	fclose(f);
	return now_ms() - first >= ms;
}

void fault_point(const char *name)
{
	const char *wanted = getenv("UBLKZC_FAULT");
	size_t len = strlen(name);

	if (wanted && strncmp(wanted, name, len) == 0 && wanted[len] == ':' &&
	    is_time(wanted + len + 1) && unlink(wanted + len + 1) == 0)
		raise(SIGKILL);
}
