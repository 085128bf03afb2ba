/* SPDX-License-Identifier: MIT */
/*
 * maps.h - the shared mappings of another process, from /proc/PID/maps
 * (proc_pid_maps(5)).
 */
#ifndef UBLKZC_SERVER_MAPS_H
#define UBLKZC_SERVER_MAPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/wire.h"

/* Mappings smaller than this are not looked at: bytes. */
#define MAPS_SHARED_MIN (1ULL << 20)

struct maps_entry {
	uint64_t start, end; /* addresses in that process */
	uint64_t offset;     /* bytes into the file */
	dev_t dev;	     /* of its file system; btrfs says another than stat(2) */
	ino_t ino;
	bool readable, writable, shared;
	const char *name; /* in the line that was parsed; may be empty */
};

/* Parse one line (its newline is cut off).  -EINVAL: it is none. */
int maps_parse(char *line, struct maps_entry *ret);

/*
 * Call @each for every shared mapping of @pid of MAPS_SHARED_MIN and more that
 * is not an arena of libublkzc.so.  0, the first result of @each that is not 0,
 * or a negative errno when /proc cannot be read (-ENOENT: no such process).
 */
int maps_each_shared(pid_t pid, int (*each)(const struct maps_entry *e, void *arg), void *arg);

/*
 * Open the file behind a mapping of memory (memory_fs.h), for writing if the mapping is
 * writable.  -ESTALE: it is another file by now.  Needs CAP_SYS_ADMIN or
 * CAP_CHECKPOINT_RESTORE.  The descriptor is the caller's.
 */
int maps_open(pid_t pid, const struct maps_entry *e);

#endif
