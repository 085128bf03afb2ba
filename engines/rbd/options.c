/* SPDX-License-Identifier: MIT */
/* options.c - see options.h. */
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX 86400U

const struct ublkzc_option option_list[] = {
	{ "conf", "FILE", "the cluster's configuration; default /etc/ceph/CLUSTER.conf" },
	{ "cluster", "NAME", "the cluster's name; default ceph" },
	{ "id", "NAME", "the client's name, without \"client.\"; default admin" },
	{ "keyring", "FILE", "the client's key; default as the configuration says" },
	{ "connect-timeout", "SECONDS",
	  "so long an answer is waited for when the device begins, 1..86400; default 30" },
	{ "cache", "none|writethrough|writeback",
	  "what librbd keeps in memory; a server's death loses what writeback has; default none" },
	{ "lock", "yes|no",
	  "hold the image's exclusive lock, so that nobody else writes it; default yes" },
	{ NULL, NULL, NULL },
};

const char *const cache_names[] = {
	[CACHE_NONE] = "none",
	[CACHE_WRITETHROUGH] = "writethrough",
	[CACHE_WRITEBACK] = "writeback",
};

static int parse_cache(const struct ublkzc_target *target, enum cache_mode *ret, char *why,
		       size_t size)
{
	const char *value = ublkzc_setting(target, "cache");

	if (!value)
		return 0;
	for (unsigned int i = 0; i < sizeof(cache_names) / sizeof(cache_names[0]); i++) {
		if (strcmp(value, cache_names[i]) == 0) {
			*ret = (enum cache_mode)i;
			return 0;
		}
	}
	snprintf(why, size, "-o cache=%s: give none, writethrough or writeback", value);
	return -EINVAL;
}

static int parse_seconds(const struct ublkzc_target *target, unsigned int *ret, char *why,
			 size_t size)
{
	const char *value = ublkzc_setting(target, "connect-timeout");
	char *end;
	unsigned long n;

	if (!value)
		return 0;
	errno = 0;
	n = strtoul(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end || errno || n < 1 || n > SECONDS_MAX) {
		snprintf(why, size, "-o connect-timeout=%s: give a whole number from 1 to %u",
			 value, SECONDS_MAX);
		return -EINVAL;
	}
	*ret = (unsigned int)n;
	return 0;
}

static int parse_names(const struct ublkzc_target *target, struct options *o, char *why,
		       size_t size)
{
	const char *id = ublkzc_setting(target, "id");
	const char *cluster = ublkzc_setting(target, "cluster");

	if (id && (!*id || strncmp(id, "client.", 7) == 0)) {
		snprintf(why, size, "-o id=%s: give the client's name without \"client.\"", id);
		return -EINVAL;
	}
	if (cluster && (!*cluster || strchr(cluster, '/'))) {
		snprintf(why, size,
			 "-o cluster=%s: give a cluster's name, as in /etc/ceph/NAME.conf",
			 cluster);
		return -EINVAL;
	}
	o->id = id ? id : "admin";
	o->cluster = cluster ? cluster : "ceph";
	o->conf = ublkzc_setting(target, "conf");
	o->keyring = ublkzc_setting(target, "keyring");
	return 0;
}

static int parse_lock(const struct ublkzc_target *target, bool *ret, char *why, size_t size)
{
	const char *value = ublkzc_setting(target, "lock");
	int yes = ublkzc_setting_yes(target, "lock");

	if (!value)
		return 0;
	if (yes < 0) {
		snprintf(why, size, "-o lock=%s: give yes or no", value);
		return -EINVAL;
	}
	*ret = yes;
	return 0;
}

int options_parse(const struct ublkzc_target *target, struct options *ret, char *why, size_t size)
{
	int err = spec_parse(target->path, &ret->spec, why, size);

	ret->connect_timeout = 30;
	ret->cache = CACHE_NONE;
	ret->lock = true;
	if (err || (err = parse_names(target, ret, why, size)) ||
	    (err = parse_seconds(target, &ret->connect_timeout, why, size)) ||
	    (err = parse_cache(target, &ret->cache, why, size)))
		return err;
	return parse_lock(target, &ret->lock, why, size);
}
