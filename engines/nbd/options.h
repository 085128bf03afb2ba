/* SPDX-License-Identifier: MIT */
/* options.h - what a person says of an NBD device: the URI and -o. */
#ifndef UBLKZC_NBD_OPTIONS_H
#define UBLKZC_NBD_OPTIONS_H

#include <ublkzc/engine.h>

#define CONNECTIONS_MAX 16U /* of a queue */
#define SLOTS_MAX 512U	    /* of a device: what can be kept for a successor (parked.c) */

/* What becomes of writes that a server has acknowledged and not flushed, when it dies. */
enum cache_mode {
	CACHE_VOLATILE,	    /* they may be lost, and then a flush must say so */
	CACHE_DURABLE,	    /* they are there */
	CACHE_WRITETHROUGH, /* there are none: every write is flushed before it is done */
};

struct options {
	unsigned int nr_connections;  /* of a queue */
	unsigned int reconnect_delay; /* seconds between two attempts to connect */
	unsigned int dead_timeout;    /* seconds without connection, then requests fail; 0: never */
	unsigned int timeout;	      /* seconds without an answer, then it is dead; 0: never */
	enum cache_mode cache;
};

extern const struct ublkzc_option option_list[];

/* 0; or -EINVAL and what is wrong in @why. */
int options_parse(const struct ublkzc_target *target, struct options *ret, char *why, size_t size);

#endif
