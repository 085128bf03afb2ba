/* SPDX-License-Identifier: MIT */
/* targets.h - the targets there are. */
#ifndef UBLKZC_SERVER_TARGETS_H
#define UBLKZC_SERVER_TARGETS_H

#include "server/queue/target.h"

extern const struct target_ops target_null;
extern const struct target_ops target_mem;
extern const struct target_ops target_file;

/* NULL-terminated, in the order of --help. */
extern const struct target_ops *const targets[];

const struct target_ops *target_find(const char *name); /* NULL: no such target */

#endif
