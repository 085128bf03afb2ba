/* SPDX-License-Identifier: MIT */
/* options.c - see options.h. */
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX 86400U

const struct ublkzc_option option_list[] = {
	{ "connections", "NR", "connections of each queue, 1..16; default 1" },
	{ "cache", "volatile|durable|writethrough",
	  "what a server's death does to writes that were not flushed; default volatile" },
	{ "reconnect-delay", "SECONDS", "between two attempts to connect, 1..86400; default 1" },
	{ "dead-timeout", "SECONDS",
	  "requests wait so long for a connection, then they fail; 0: for ever; default 120" },
	{ "timeout", "SECONDS",
	  "a connection is dead that does not answer for so long; 0: it is never; default 0" },
	{ NULL, NULL, NULL },
};

static int parse_number(const struct ublkzc_target *target, const char *name, unsigned int min,
			unsigned int max, unsigned int *ret, char *why, size_t size)
{
	const char *value = ublkzc_setting(target, name);
	char *end;
	unsigned long n;

	if (!value)
		return 0;
	errno = 0;
	n = strtoul(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end || errno || n < min || n > max) {
		snprintf(why, size, "-o %s=%s: give a whole number from %u to %u", name, value, min,
			 max);
		return -EINVAL;
	}
	*ret = (unsigned int)n;
	return 0;
}

static int parse_cache(const struct ublkzc_target *target, enum cache_mode *ret, char *why,
		       size_t size)
{
	static const char *const names[] = {
		[CACHE_VOLATILE] = "volatile",
		[CACHE_DURABLE] = "durable",
		[CACHE_WRITETHROUGH] = "writethrough",
	};
	const char *value = ublkzc_setting(target, "cache");

	for (unsigned int i = 0; i < 3; i++) {
		if (value && strcmp(value, names[i]) == 0) {
			*ret = (enum cache_mode)i;
			return 0;
		}
	}
	if (!value)
		return 0;
	snprintf(why, size, "-o cache=%s: give volatile, durable or writethrough", value);
	return -EINVAL;
}

/* A successor has another working directory: paths in the URI must be absolute. */
static const char *relative_path(const char *uri)
{
	static const char *const parameters[] = { "socket=", "tls-certificates=", "tls-psk-file=" };
	const char *query = strchr(uri, '?');

	for (const char *at = query; at; at = strpbrk(at + 1, "&;")) {
		for (unsigned int i = 0; i < 3; i++) {
			size_t len = strlen(parameters[i]);
			const char *value = at + 1 + len;

			if (strncmp(at + 1, parameters[i], len) == 0 && value[0] != '/' &&
			    strncasecmp(value, "%2f", 3) != 0)
				return at + 1;
		}
	}
	return NULL;
}

static int check_uri(const char *uri, char *why, size_t size)
{
	static const char *const schemes[] = { "nbd:",	     "nbds:",	   "nbd+unix:",
					       "nbds+unix:", "nbd+vsock:", "nbds+vsock:" };
	const char *relative = relative_path(uri);

	if (relative) {
		snprintf(why, size, "%s: give an absolute path in '%.*s'", uri,
			 (int)strcspn(relative, "&;"), relative);
		return -EINVAL;
	}
	for (unsigned int i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (strncasecmp(uri, schemes[i], strlen(schemes[i])) == 0)
			return 0;
	snprintf(why, size,
		 "%s is no NBD URI: give nbd://HOST[:PORT]/EXPORT, nbds:// for TLS, or "
		 "nbd+unix:///EXPORT?socket=/PATH",
		 uri);
	return -EINVAL;
}

int options_parse(const struct ublkzc_target *target, struct options *ret, char *why, size_t size)
{
	struct options o = { .nr_connections = 1, .reconnect_delay = 1, .dead_timeout = 120 };
	int err = check_uri(target->path, why, size);

	if (err ||
	    (err = parse_number(target, "connections", 1, CONNECTIONS_MAX, &o.nr_connections, why,
				size)) ||
	    (err = parse_number(target, "reconnect-delay", 1, SECONDS_MAX, &o.reconnect_delay, why,
				size)) ||
	    (err = parse_number(target, "dead-timeout", 0, SECONDS_MAX, &o.dead_timeout, why,
				size)) ||
	    (err = parse_number(target, "timeout", 0, SECONDS_MAX, &o.timeout, why, size)) ||
	    (err = parse_cache(target, &o.cache, why, size)))
		return err;
	if (o.nr_connections * target->nr_queues > SLOTS_MAX) {
		snprintf(why, size, "%u queues with %u connections each: at most %u together",
			 target->nr_queues, o.nr_connections, SLOTS_MAX);
		return -EINVAL;
	}
	*ret = o;
	return 0;
}
