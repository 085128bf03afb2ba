/* SPDX-License-Identifier: MIT */
/* image.c - see image.h. */
#include "image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OWNERS 4

/* ---- open ---- */

static int denied(const struct disk *d, int err, char *why, size_t size)
{
	const struct options *o = &d->options;

	snprintf(why, size,
		 "client.%s may not %s it: allow it with \"ceph auth caps client.%s mon 'profile "
		 "rbd' osd 'profile rbd%s pool=%s'\"%s",
		 o->id, d->read_only ? "read" : "write", o->id, d->read_only ? "-read-only" : "",
		 o->spec.pool, d->read_only ? "" : ", or add the device with --read-only");
	return err;
}

static int no_answer(const struct disk *d, int err, char *why, size_t size)
{
	snprintf(why, size,
		 "the cluster's OSDs do not answer in %u seconds: see \"ceph status\" (-o "
		 "connect-timeout)",
		 d->options.connect_timeout);
	return err;
}

static int open_pool(struct disk *d, char *why, size_t size)
{
	const struct spec *s = &d->options.spec;
	bool exists = true;
	int ret = rados_ioctx_create(d->cluster, s->pool, &d->pool);

	if (ret) {
		d->pool = NULL;
		if (ret == -ENOENT)
			snprintf(why, size, "there is no pool '%s': see \"ceph osd pool ls\"",
				 s->pool);
		else
			snprintf(why, size, "pool '%s': %s", s->pool, strerror(-ret));
		return ret;
	}
	if (!*s->name_space)
		return 0;
	ret = rbd_namespace_exists(d->pool, s->name_space, &exists);
	if (!ret && !exists) {
		snprintf(why, size, "pool '%s' has no namespace '%s': see \"rbd namespace ls %s\"",
			 s->pool, s->name_space, s->pool);
		return -ENOENT;
	}
	/* Who may not look may still use it. */
	rados_ioctx_set_namespace(d->pool, s->name_space);
	return ret == -ETIMEDOUT ? no_answer(d, ret, why, size) : 0;
}

static bool image_exists(struct disk *d)
{
	rbd_image_t image;

	if (rbd_open_read_only(d->pool, d->options.spec.image, &image, NULL))
		return false;
	rbd_close(image);
	return true;
}

static int explain_open(struct disk *d, int err, char *why, size_t size)
{
	const struct spec *s = &d->options.spec;
	const char *slash = *s->name_space ? "/" : "";

	if (err == -EPERM || err == -EACCES)
		return denied(d, err, why, size);
	if (err == -ETIMEDOUT)
		return no_answer(d, err, why, size);
	if (err == -ENOENT && s->snapshot && image_exists(d))
		snprintf(why, size, "the image has no snapshot '%s': see \"rbd snap ls %s%s%s/%s\"",
			 s->snapshot, s->pool, slash, s->name_space, s->image);
	else if (err == -ENOENT)
		snprintf(why, size, "there is no image '%s' in %s%s%s: see \"rbd ls %s%s%s\"",
			 s->image, s->pool, slash, s->name_space, s->pool, slash, s->name_space);
	else
		snprintf(why, size, "the image cannot be opened: %s", strerror(-err));
	return err;
}

/* librbd's thread.  It may call librbd here, if that does not need an answer of the cluster. */
static void image_changed(void *arg)
{
	struct disk *d = arg;
	uint64_t size, before = atomic_load(&d->size);

	if (rbd_get_size(d->image, &size) || size == before)
		return;
	atomic_store(&d->size, size);
	if (size < d->target->size)
		ublkzc_log(
			UBLKZC_LOG_ERROR,
			"%s: the image was made smaller, to %llu bytes: what the device has beyond "
			"is gone, and I/O there fails",
			d->target->path, (unsigned long long)size);
	else
		ublkzc_log(UBLKZC_LOG_WARNING,
			   "%s: the image has %llu bytes now; \"ublkzc resize\" makes them the "
			   "device's",
			   d->target->path, (unsigned long long)size);
}

int image_open(struct disk *d, char *why, size_t size)
{
	const struct spec *s = &d->options.spec;
	uint64_t bytes;
	int ret = open_pool(d, why, size);

	if (ret)
		return ret;
	d->read_only = d->target->read_only || s->snapshot;
	ret = (d->read_only ? rbd_open_read_only : rbd_open)(d->pool, s->image, &d->image,
							     s->snapshot);
	if (ret) {
		d->image = NULL;
		return explain_open(d, ret, why, size);
	}
	ret = rbd_get_size(d->image, &bytes);
	if (ret) {
		snprintf(why, size, "the image's size: %s", strerror(-ret));
		return ret;
	}
	atomic_store(&d->size, bytes);
	/* A snapshot does not change, and who cannot write cannot watch. */
	d->watching = !d->read_only && rbd_update_watch(d->image, &d->watch, image_changed, d) == 0;
	return 0;
}

void image_close(struct disk *d)
{
	if (d->watching)
		rbd_update_unwatch(d->image, d->watch);
	if (d->image)
		rbd_close(d->image);
	if (d->pool)
		rados_ioctx_destroy(d->pool);
	d->watching = false;
	d->image = NULL;
	d->pool = NULL;
}

/* ---- lock ---- */

static void explain_lock(struct disk *d, int err, char *why, size_t size)
{
	rbd_lock_mode_t mode;
	char *owners[OWNERS];
	size_t nr = OWNERS;
	bool known = rbd_lock_get_owners(d->image, &mode, owners, &nr) == 0;

	if (known && nr)
		snprintf(
			why, size,
			"the image is locked by the client at %s, which is alive: end what uses it "
			"there (\"rbd lock ls\", \"rbd status\")",
			owners[0]);
	else
		snprintf(why, size, "the image's lock cannot be had: %s", strerror(-err));
	if (known)
		rbd_lock_get_owners_cleanup(owners, nr);
}

int image_lock(struct disk *d, char *why, size_t size)
{
	const struct spec *s = &d->options.spec;
	uint64_t features;
	int ret;

	if (d->read_only || !d->options.lock)
		return 0;
	ret = rbd_get_features(d->image, &features);
	if (!ret && !(features & RBD_FEATURE_EXCLUSIVE_LOCK)) {
		snprintf(why, size,
			 "the image cannot be locked: \"rbd feature enable %s%s%s/%s "
			 "exclusive-lock\"; or -o lock=no, if nobody else writes it",
			 s->pool, *s->name_space ? "/" : "", s->name_space, s->image);
		return -EINVAL;
	}
	if (!ret)
		ret = rbd_lock_acquire(d->image, RBD_LOCK_MODE_EXCLUSIVE);
	if (!ret)
		return 0;
	if (ret == -EPERM || ret == -EACCES)
		return denied(d, ret, why, size);
	explain_lock(d, ret, why, size);
	return ret;
}

/* ---- what it is ---- */

/* A setting as it is for this image: its own ("rbd config image set") go before ours. */
static const char *setting_of(const rbd_config_option_t *list, int nr, const char *name)
{
	for (int i = 0; i < nr; i++)
		if (strcmp(list[i].name, name) == 0)
			return list[i].value;
	return "";
}

static enum cache_mode cache_of(const rbd_config_option_t *list, int nr)
{
	if (strcmp(setting_of(list, nr, "rbd_cache"), "true") != 0)
		return CACHE_NONE;
	return strcmp(setting_of(list, nr, "rbd_cache_policy"), "writethrough") == 0
		       ? CACHE_WRITETHROUGH
		       : CACHE_WRITEBACK;
}

static int contradicts(const char *name, const char *value, const char *wanted, char *why,
		       size_t size)
{
	snprintf(why, size,
		 "the image's or pool's own settings say %s = %s, and %s is needed: see \"rbd "
		 "config "
		 "image ls\" and \"rbd config image rm\"%s",
		 name, value, wanted, strncmp(name, "rbd_cache", 9) == 0 ? ", or -o cache=" : "");
	return -EINVAL;
}

static int judge_settings(const struct disk *d, const rbd_config_option_t *list, int nr, char *why,
			  size_t size)
{
	static const char *const needed[] = { "rbd_disable_zero_copy_writes",
					      "rbd_blocklist_on_break_lock" };
	enum cache_mode cache = cache_of(list, nr);

	for (unsigned int i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		const char *value = setting_of(list, nr, needed[i]);

		if (strcmp(value, "false") == 0)
			return contradicts(needed[i], value, "true", why, size);
	}
	if (cache != d->options.cache)
		return contradicts("rbd_cache", cache_names[cache], cache_names[d->options.cache],
				   why, size);
	return 0;
}

static int check_settings(struct disk *d, char *why, size_t size)
{
	rbd_config_option_t *list = NULL;
	int nr = 0, ret = rbd_config_image_list(d->image, NULL, &nr);

	if (ret == -ERANGE) {
		list = calloc((size_t)nr, sizeof(*list));
		ret = list ? rbd_config_image_list(d->image, list, &nr) : -ENOMEM;
	}
	if (ret < 0) {
		snprintf(why, size, "the image's settings cannot be read: %s", strerror(-ret));
	} else if (list) {
		ret = judge_settings(d, list, nr, why, size);
		rbd_config_image_list_cleanup(list, nr);
	}
	free(list);
	return ret;
}

int image_describe(struct disk *d, char *why, size_t size)
{
	struct ublkzc_target *t = d->target;
	uint64_t stripe, bytes = atomic_load(&d->size);
	int ret = check_settings(d, why, size);

	if (ret)
		return ret;
	if (!t->block_size)
		t->block_size = 512;
	t->size = bytes - bytes % t->block_size;
	if (!t->size) {
		snprintf(why, size, "the image has no bytes: \"rbd resize\"");
		return -EINVAL;
	}
	t->read_only = d->read_only;
	/* Also without a cache: an image's journal has one, and to flush what is stable is quick.
	 */
	t->volatile_cache = true;
	t->discard = t->write_zeroes = true;
	if (rbd_get_stripe_unit(d->image, &stripe) == 0 && stripe && stripe <= 1U << 30 &&
	    !(stripe & (stripe - 1)))
		t->preferred = (uint32_t)stripe;
	return 0;
}
