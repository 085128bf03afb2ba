/* SPDX-License-Identifier: MIT */
/* engine.c - the engine "rbd": an image of a Ceph cluster, by librbd.  Control thread. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ancestors.h"
#include "cluster.h"
#include "image.h"
#include "queue.h"

/* What is under way to an OSD when its client ends is done or forgotten long before. */
#define UNKNOWN_SECONDS 60

static int rbd_engine_check(const struct ublkzc_target *target, char *why, size_t size)
{
	struct options o;

	return options_parse(target, &o, why, size);
}

static int wrong(const struct disk *d, int err, const char *what)
{
	ublkzc_log(UBLKZC_LOG_ERROR, "%s: %s", d->target->path, what);
	return err;
}

/* ---- servers that were before this one ---- */

/* What they had asked for is over.  d->fenced: because they are known. */
static int end_ancestors(struct disk *d, char *why, size_t size)
{
	char *addresses;
	int ret;

	if (d->target->fd < 0)
		return 0;
	addresses = ancestors_read(d->target->fd, &ret);
	if (!addresses) {
		snprintf(why, size, "the addresses of dead servers cannot be read: %s",
			 strerror(-ret));
		return ret;
	}
	ret = cluster_cut_off(d, addresses, why, size);
	d->fenced = !ret && *addresses;
	free(addresses);
	return ret;
}

/* For who comes after this one.  Before anything is asked for. */
static int leave_address(struct disk *d, char *why, size_t size)
{
	char *address = cluster_own_address(d);
	int ret = address ? 0 : -EIO;

	if (!ret && d->target->fd < 0) {
		d->target->fd = ancestors_open();
		ret = d->target->fd < 0 ? d->target->fd : 0;
	}
	if (!ret)
		ret = ancestors_add(d->target->fd, address);
	if (ret)
		snprintf(why, size, "this client's address cannot be left for a successor: %s",
			 strerror(-ret));
	if (address)
		rados_buffer_free(address);
	return ret;
}

/* Those before are done with. */
static void forget_ancestors(struct disk *d)
{
	char *address = cluster_own_address(d);

	if (address)
		ancestors_set(d->target->fd, address);
	rados_buffer_free(address);
}

/* ---- open ---- */

static int open_disk(struct disk *d, char *why, size_t size)
{
	bool successor = d->target->fd >= 0;
	int ret = options_parse(d->target, &d->options, why, size);

	if (ret || (ret = cluster_connect(d, why, size)) || (ret = end_ancestors(d, why, size)) ||
	    (ret = leave_address(d, why, size)) || (ret = image_open(d, why, size)) ||
	    (ret = image_lock(d, why, size)) || (ret = image_describe(d, why, size)))
		return ret;
	if (successor && d->fenced)
		forget_ancestors(d);
	return 0;
}

static int rbd_engine_open(struct ublkzc_target *target)
{
	struct disk *d = calloc(1, sizeof(*d));
	char why[MESSAGE];
	int ret;

	if (!d)
		return -ENOMEM;
	d->target = target;
	target->priv = d;
	ret = open_disk(d, why, sizeof(why));
	if (ret)
		return wrong(d, ret, why);
	cluster_set_patience(d, true);
	return 0;
}

/*
 * Who has the image's lock has cut off whoever had it before: the dead server, unless others have
 * done so already.
 */
static int rbd_engine_fence(struct ublkzc_target *target)
{
	struct disk *d = target->priv;

	if (d->options.cache == CACHE_WRITEBACK && !d->read_only) {
		atomic_store(&d->doubt, true);
		wrong(d, 0,
		      "the dead server may have had writes in its cache: the next flush fails "
		      "(docs/engines.md, cache=)");
	}
	if (d->fenced || d->read_only || d->options.lock)
		return 0;
	ublkzc_log(UBLKZC_LOG_WARNING,
		   "%s: nothing is known of the dead server, and there is no lock: waiting %d "
		   "seconds for what it had asked",
		   target->path, UNKNOWN_SECONDS);
	poll(NULL, 0, UNKNOWN_SECONDS * 1000);
	d->fenced = true;
	return 0;
}

/* ---- later ---- */

static int rbd_engine_grow(struct ublkzc_target *target, uint64_t *size)
{
	struct disk *d = target->priv;
	char why[MESSAGE];
	uint64_t now;
	int ret = rbd_get_size(d->image, &now);

	if (ret)
		return wrong(d, ret, strerror(-ret));
	now -= now % target->block_size;
	if (*size > now) {
		snprintf(why, sizeof(why),
			 "the image has %llu bytes: make it larger first, with \"rbd resize\"",
			 (unsigned long long)now);
		return wrong(d, -EINVAL, why);
	}
	if (!*size)
		*size = now;
	return 0;
}

static void rbd_engine_close(struct ublkzc_target *target)
{
	struct disk *d = target->priv;

	if (!d)
		return;
	/* To end must not need the cluster, unless something is still to be written there. */
	if (d->cluster && d->options.cache != CACHE_WRITEBACK)
		cluster_set_patience(d, false);
	image_close(d);
	if (d->cluster)
		rados_shutdown(d->cluster);
	if (target->fd >= 0)
		close(target->fd);
	target->fd = -1;
	target->priv = NULL;
	free(d);
}

/* librbd copies writes, and puts together what it has read. */
static const struct ublkzc_engine engine = {
	.size = sizeof(engine),
	.flags = UBLKZC_TOUCHES_DATA,
	.name = "rbd",
	.summary = "an image of a Ceph cluster, or a snapshot of one",
	.argument = "POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]",
	.options = option_list,
	.check = rbd_engine_check,
	.open = rbd_engine_open,
	.fence = rbd_engine_fence,
	.grow = rbd_engine_grow,
	.close = rbd_engine_close,
	.submit = rbd_engine_submit,
};

UBLKZC_ENGINE(engine);
