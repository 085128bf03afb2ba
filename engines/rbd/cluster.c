/* SPDX-License-Identifier: MIT */
/* cluster.c - see cluster.h. */
#include "cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VALUE 256 /* characters of a setting that are shown */

static const char *value_of(const struct disk *d, const char *name, char *buf, size_t size)
{
	if (rados_conf_get(d->cluster, name, buf, size) < 0)
		snprintf(buf, size, "?");
	return buf;
}

/* ---- the configuration ---- */

static int read_conf(struct disk *d, char *why, size_t size)
{
	const struct options *o = &d->options;
	int ret = rados_conf_read_file(d->cluster, o->conf);

	if (ret == -ENOENT && o->conf)
		snprintf(why, size,
			 "%s: there is no such file: give the cluster's configuration "
			 "with -o conf=FILE",
			 o->conf);
	else if (ret == -ENOENT)
		snprintf(why, size,
			 "there is no /etc/ceph/%s.conf: give the cluster's "
			 "configuration with -o conf=FILE",
			 o->cluster);
	else if (ret)
		snprintf(why, size, "%s: the cluster's configuration cannot be read: %s",
			 o->conf ? o->conf : o->cluster, strerror(-ret));
	return ret;
}

static int set(struct disk *d, const char *name, const char *value, char *why, size_t size)
{
	int ret = rados_conf_set(d->cluster, name, value);

	if (ret)
		snprintf(why, size, "librados does not take %s = %s: %s", name, value,
			 strerror(-ret));
	return ret;
}

static int set_cache(struct disk *d, char *why, size_t size)
{
	enum cache_mode mode = d->options.cache;
	int ret = set(d, "rbd_cache", mode == CACHE_NONE ? "false" : "true", why, size);

	if (ret || mode == CACHE_NONE)
		return ret;
	return set(d, "rbd_cache_policy", cache_names[mode], why, size);
}

static int configure(struct disk *d, char *why, size_t size)
{
	const struct options *o = &d->options;
	char seconds[16];
	int ret = read_conf(d, why, size);

	snprintf(seconds, sizeof(seconds), "%u", o->connect_timeout);
	if (ret || (o->keyring && (ret = set(d, "keyring", o->keyring, why, size))) ||
	    (ret = set(d, "client_mount_timeout", seconds, why, size)) ||
	    /* Programs may change what they have asked to be written; image.c. */
	    (ret = set(d, "rbd_disable_zero_copy_writes", "true", why, size)) ||
	    /* Whose lock is taken must not write any more. */
	    (ret = set(d, "rbd_blocklist_on_break_lock", "true", why, size)))
		return ret;
	return set_cache(d, why, size);
}

/* ---- connect ---- */

static void explain(const struct disk *d, int err, char *why, size_t size)
{
	const struct options *o = &d->options;
	char hosts[VALUE], keyring[VALUE];

	value_of(d, "mon_host", hosts, sizeof(hosts));
	value_of(d, "keyring", keyring, sizeof(keyring));
	if (err == -ETIMEDOUT)
		snprintf(why, size,
			 "no monitor of the cluster answers in %u seconds (mon host = %s): is the "
			 "network there, and is that where they are? (-o connect-timeout)",
			 o->connect_timeout, hosts);
	else if (err == -ENOENT && !*hosts)
		snprintf(why, size,
			 "the configuration names no monitors (mon host): give the cluster's own "
			 "with -o conf=FILE");
	else if (err == -ENOENT)
		snprintf(why, size,
			 "there is no key for client.%s in %s: give one with -o keyring=FILE, or "
			 "another client with -o id=NAME",
			 o->id, keyring);
	else if (err == -EACCES || err == -EPERM)
		snprintf(why, size,
			 "the cluster does not let client.%s in with the key in %s: see \"ceph "
			 "auth get client.%s\"",
			 o->id, keyring, o->id);
	else
		snprintf(why, size, "no connection to the cluster (mon host = %s) as client.%s: %s",
			 hosts, o->id, strerror(-err));
}

int cluster_connect(struct disk *d, char *why, size_t size)
{
	char name[VALUE];
	int ret;

	snprintf(name, sizeof(name), "client.%s", d->options.id);
	ret = rados_create2(&d->cluster, d->options.cluster, name, 0);
	if (ret) {
		d->cluster = NULL;
		snprintf(why, size, "librados cannot be a %s of the cluster %s: %s", name,
			 d->options.cluster, strerror(-ret));
		return ret;
	}
	ret = configure(d, why, size);
	if (ret)
		return ret;
	cluster_set_patience(d, false);
	ret = rados_connect(d->cluster);
	if (ret)
		explain(d, ret, why, size);
	return ret;
}

/*
 * Only while the device begins or ends, when nobody's data is on its way: a write that was
 * given up may still be done later, so requests are never given up.
 */
void cluster_set_patience(struct disk *d, bool for_ever)
{
	char seconds[16];

	snprintf(seconds, sizeof(seconds), "%u", for_ever ? 0 : d->options.connect_timeout);
	rados_conf_set(d->cluster, "rados_mon_op_timeout", seconds);
	rados_conf_set(d->cluster, "rados_osd_op_timeout", seconds);
}

/* ---- clients ---- */

char *cluster_own_address(struct disk *d)
{
	char *address;

	return rados_getaddrs(d->cluster, &address) ? NULL : address;
}

/*
 * A monitor answers EPERM to a client that does not know yet which cluster it is in: what says so
 * may come after the connection is made.  Who is really not allowed is told EACCES.
 */
static int blocklist(struct disk *d, char *address)
{
	int ret = rados_blocklist_add(d->cluster, address, 0);

	for (unsigned int i = 0; ret == -EPERM && i < d->options.connect_timeout; i++) {
		sleep(1);
		ret = rados_blocklist_add(d->cluster, address, 0);
	}
	return ret;
}

static int cut_off(struct disk *d, char *address, char *why, size_t size)
{
	int ret = blocklist(d, address);

	if (ret == -EACCES)
		snprintf(why, size,
			 "client.%s may not blocklist %s, the dead server: allow it with \"ceph "
			 "auth "
			 "caps client.%s mon 'profile rbd' osd 'profile rbd pool=%s'\"",
			 d->options.id, address, d->options.id, d->options.spec.pool);
	else if (ret)
		snprintf(why, size, "%s, the dead server, cannot be blocklisted: %s", address,
			 strerror(-ret));
	return ret;
}

/*
 * The call returns when this client has a map of the cluster that says so.  Whatever we
 * ask for then carries that map's number, and no OSD does it before it has the map, too; and
 * with that it does nothing of theirs any more.
 */
int cluster_cut_off(struct disk *d, const char *addresses, char *why, size_t size)
{
	char *text = strdup(addresses), *save = NULL;
	int ret = text ? 0 : -ENOMEM;

	if (!text)
		snprintf(why, size, "no memory");
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line && !ret;
	     line = strtok_r(NULL, "\n", &save))
		ret = cut_off(d, line, why, size);
	free(text);
	return ret;
}
