/* SPDX-License-Identifier: MIT */
/*
 * keeper.h - the small parent that replaces its server.
 *
 *   keeper --fork--> server --(vault.h: records and descriptors)--> keeper
 *      |                 dies by a signal, ends with an error, or hands over
 *      +--fork, exec--> successor <--(all records)-- keeper
 *
 * The keeper does no I/O and reads nothing but its server's records, so that
 * there is little in it that could fail.
 *
 * Which program is the successor?  The one that has proved itself: the keeper has its
 * executable open, so that a file which is replaced or removed changes nothing.  For an upgrade
 * (handover.h) the installed program is tried first: it is started as "rehearse", gets
 * a copy of the records, and must say that it understands them.  Then it serves on probation,
 * and the program that worked before comes back if it dies.
 */
#ifndef UBLKZC_SERVER_KEEPER_H
#define UBLKZC_SERVER_KEEPER_H

#include "manager.h"
#include "vault.h"

/*
 * Before the successor of a server that did not last: doubled from the first to the last, of
 * those that were never live and of those that were.
 */
#define KEEPER_PAUSE_MIN_MS 100
#define KEEPER_PAUSE_MAX_MS 10000
#define KEEPER_PAUSE_LIVE_MAX_MS 1000
#define KEEPER_LASTS_MS 10000 /* live for that long, it has lasted */

/* How long a new program has, in ms. */
struct keeper_times {
	int rehearsal; /* to understand the records */
	int start;     /* to be live: a driver may need a minute to let the dead server go */
	int probation; /* to have proved itself, when it has been live for that long */
};
#define KEEPER_TIMES ((struct keeper_times){ 30000, 90000, 3000 })

/* A program of which that many servers did not last is given up for the installed one, if
 * that is another. */
#define KEEPER_DEATHS 3

/* A server that was told to stop has this long, then it is killed. */
#define KEEPER_STOP_MS 30000

/* A successor reads no records while it waits for the driver to notice the death. */
#define KEEPER_SEND_S 90

/* Where /proc does not say it: whoever is not dead so long after it has hung up is not dying. */
#define KEEPER_DYING_MS 10000

/* A manager that waits for us to be ready is told that each try may take as long: microseconds. */
#define KEEPER_EXTEND_US "100000000"

/* Exit statuses of a server, beside 0 (it was told to stop) and EXIT_FAILURE. */
#define EXIT_GONE 3	     /* the device is no more, or what was on it: no successor */
#define EXIT_OTHER_VAULT 4   /* does not understand the records */
#define EXIT_OTHER_STATE 5   /* ... the state file */
#define EXIT_OTHER_OPTIONS 6 /* ... the command line */

/* Of a keeper: its device waits for another server, whom it could not tell enough. */
#define EXIT_WAITS 7

struct keeper_start {
	/* Runs in the first server's process, whose exit status it returns. */
	int (*serve)(struct vault *v, void *arg);
	/* Runs in the keeper when the device is live: once, and not for successors. */
	void (*ready)(unsigned int device, void *arg);
	void *arg;
	/* Of the successor: "ublkzc take-over VERSION FD" and then these. */
	char **argv;
	int argc;
	struct keeper_times times;
	const char *program; /* where it is installed; NULL: where this one is */
	/* What a keeper that died left with the service manager: keeper_left(). */
	const struct manager_fd *left;
	unsigned int nr_left;
};

/*
 * Of which device the records are that are among what the service manager kept.  -ENOENT: there are
 * none; -EPROTO: another program's.
 */
int keeper_left(const struct manager_fd *left, unsigned int nr);

/* Nobody wants what the manager kept. */
void keeper_forget_left(const struct manager_fd *left, unsigned int nr);

/*
 * Start a server, or the successor of one whose keeper has died as well, and stay until it has
 * stopped for good.  Returns the exit status for the keeper itself.
 */
int keeper_run(const struct keeper_start *start);

#endif
