/* SPDX-License-Identifier: MIT */
/*
 * keeper.h - the small parent that replaces a server that died.
 *
 *   keeper --fork--> server --(vault.h: records and descriptors)--> keeper
 *      |                 dies by a signal, or ends with an error
 *      +--fork, exec--> successor <--(all records)-- keeper
 *
 * The keeper does no I/O and reads nothing but its server's records, so that
 * there is little in it that could fail.  The successor is the program that is
 * installed now, which is how a server is upgraded under a live device.
 */
#ifndef UBLKZC_SERVER_KEEPER_H
#define UBLKZC_SERVER_KEEPER_H

#include "vault.h"

/* Between successors that die at once: doubled from the first to the last. */
#define KEEPER_PAUSE_MIN_MS 100
#define KEEPER_PAUSE_MAX_MS 10000

/* A server that was told to stop has this long, then it is killed. */
#define KEEPER_STOP_MS 30000

/* A successor reads no records while it waits for the driver to notice the death. */
#define KEEPER_SEND_S 90

/* From the end of a dying server's connection until it is dead; else it is not dying. */
#define KEEPER_DYING_MS 10000

/* Exit statuses of a server, beside 0 (it was told to stop) and EXIT_FAILURE. */
#define EXIT_GONE 3	   /* the device is no more: no successor */
#define EXIT_OTHER_VAULT 4 /* a successor of another version: try the old program */

struct keeper_start {
	/* Runs in the first server's process, whose exit status it returns. */
	int (*serve)(struct vault *v, void *arg);
	/* Runs in the keeper when the device is live: once, and not for successors. */
	void (*ready)(unsigned int device, void *arg);
	void *arg;
	/* Of the successor: "ublkzc take-over VERSION FD" and then these. */
	char **argv;
	int argc;
};

/*
 * Start a server and stay until it has stopped for good.  Returns the exit
 * status for the keeper itself.
 */
int keeper_run(const struct keeper_start *start);

#endif
