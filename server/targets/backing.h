/* SPDX-License-Identifier: MIT */
/*
 * backing.h - the file or block device of a target: whose it is, and what it can.
 */
#ifndef UBLKZC_SERVER_BACKING_H
#define UBLKZC_SERVER_BACKING_H

#include <stdint.h>

#include "server/queue/target.h"

/*
 * Open target->path for this server alone, or go on with target->fd, and fill in the rest.
 * A block device that somebody else has is refused with -EBUSY, unless target->force is set;
 * a file that another server serves always.  Logs what is wrong.
 */
int backing_open(struct target *target);

/* target_ops.grow: only to see how much there is now.  The file is its owner's to extend. */
int backing_grow(struct target *target, uint64_t *size);

#endif
