/* SPDX-License-Identifier: MIT */
/*
 * ancestors.h - the addresses that this device's servers had as clients of the cluster.
 *
 * What a dead server had asked for may still wait in the cluster.  It ends when the cluster no
 * longer listens to that client, whom it knows by its address; so each server writes its own into a
 * file that outlives it, target->fd, before it asks for anything.
 *
 * Control thread.
 */
#ifndef UBLKZC_RBD_ANCESTORS_H
#define UBLKZC_RBD_ANCESTORS_H

#include <stddef.h>

#define ADDRESSES_MAX 65536U /* bytes of them: more than servers can have died in between */

/* A new file, without addresses; or -errno. */
int ancestors_open(void);

/*
 * All that are in @fd, one a line, in a malloc()ed string; NULL and -errno in @ret_err: they cannot
 * be known.
 */
char *ancestors_read(int fd, int *ret_err);

/* And @address.  0 or -errno. */
int ancestors_add(int fd, const char *address);

/* @address is the only one.  0 or -errno. */
int ancestors_set(int fd, const char *address);

#endif
