/* SPDX-License-Identifier: MIT */
/*
 * backing.h - the file or block device of a target: whose it is, and what it can.
 */
#ifndef UBLKZC_SERVER_BACKING_H
#define UBLKZC_SERVER_BACKING_H

#include <ublkzc/engine.h>

/* The options: "buffered" and "force" are yes or no. */
int backing_check(const struct ublkzc_target *target, char *why, size_t size);

/*
 * Open target->path for this server alone, or go on with target->fd, and fill in the rest.
 * A block device that somebody else has is refused with -EBUSY, unless the option "force" is given;
 * a file that another server serves always.  Logs what is wrong.
 */
int backing_open(struct ublkzc_target *target);

/* ublkzc_engine.grow: only to see how much there is now.  The file is its owner's to extend. */
int backing_grow(struct ublkzc_target *target, uint64_t *size);

#endif
