/* SPDX-License-Identifier: MIT */
/* options.h - what a person says of an RBD device: the image and -o. */
#ifndef UBLKZC_RBD_OPTIONS_H
#define UBLKZC_RBD_OPTIONS_H

#include <stdbool.h>
#include <ublkzc/engine.h>

#include "spec.h"

/* What librbd keeps in this process's memory. */
enum cache_mode {
	CACHE_NONE,	    /* nothing: what is acknowledged is in the cluster */
	CACHE_WRITETHROUGH, /* what was read; what is acknowledged is in the cluster */
	CACHE_WRITEBACK,    /* also what was written, until a flush */
};

struct options {
	struct spec spec;
	const char *conf;	      /* NULL: where Ceph's programs look */
	const char *cluster;	      /* its name */
	const char *id;		      /* of the client, without "client." */
	const char *keyring;	      /* NULL: as the configuration says */
	unsigned int connect_timeout; /* seconds */
	enum cache_mode cache;
	bool lock; /* nobody else writes the image while we have it */
};

extern const struct ublkzc_option option_list[];
extern const char *const cache_names[];

/* 0; or -EINVAL and what is wrong in @why. */
int options_parse(const struct ublkzc_target *target, struct options *ret, char *why, size_t size);

#endif
