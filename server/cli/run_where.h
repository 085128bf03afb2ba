/* SPDX-License-Identifier: MIT */
/*
 * run_where.h - of which files that was what was copied.
 *
 * Servers note where on the disk they copy (server/life/copied.h); the file is the one whose
 * extents are there. Found are the files that this user may read, of file systems that are on the
 * device itself or on a partition of it; of no stack of other devices, whose places are others.
 */
#ifndef UBLKZC_SERVER_CLI_RUN_WHERE_H
#define UBLKZC_SERVER_CLI_RUN_WHERE_H

struct run_where;

/* From now on. NULL: no memory, and then the others do nothing. */
struct run_where *run_where_begin(void);

/* Take what was noted since, before it is overwritten: now and then. @arg: struct run_where. */
void run_where_look(void *arg);

/* Of each device the file with most bytes copied, a line on standard error. Gives @w up. */
void run_where_say(struct run_where *w);

#endif
