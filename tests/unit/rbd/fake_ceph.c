/* SPDX-License-Identifier: MIT */
/* fake_ceph.c - see fake_ceph.h. */
#undef NDEBUG
#include "fake_ceph.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <rados/librados.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFS 32
#define OWN "10.0.0.1:0/"

struct fake fake;

static struct {
	char name[64], value[128];
} confs[CONFS];
static unsigned int nr_servers; /* a number in each one's address */
static rbd_update_callback_t watcher;
static void *watcher_arg;

void fake_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	memset(confs, 0, sizeof(confs));
	fake.size = FAKE_SIZE;
	fake.features = RBD_FEATURE_EXCLUSIVE_LOCK;
}

const char *fake_conf(const char *name)
{
	for (unsigned int i = 0; i < CONFS; i++)
		if (strcmp(confs[i].name, name) == 0)
			return confs[i].value;
	return "";
}

void fake_resize(uint64_t size)
{
	fake.size = size;
	if (watcher)
		watcher(watcher_arg);
}

/* ---- librados ---- */

int rados_create2(rados_t *ret, const char *const cluster, const char *const name, uint64_t flags)
{
	assert(*cluster && strncmp(name, "client.", 7) == 0 && !flags);
	*ret = &fake;
	return 0;
}

int rados_conf_read_file(rados_t cluster, const char *path)
{
	(void)cluster;
	(void)path;
	return fake.conf_error;
}

int rados_conf_set(rados_t cluster, const char *name, const char *value)
{
	unsigned int i = 0;

	(void)cluster;
	while (confs[i].name[0] && strcmp(confs[i].name, name) != 0)
		assert(++i < CONFS);
	snprintf(confs[i].name, sizeof(confs[i].name), "%s", name);
	snprintf(confs[i].value, sizeof(confs[i].value), "%s", value);
	return 0;
}

int rados_conf_get(rados_t cluster, const char *name, char *buf, size_t len)
{
	(void)cluster;
	snprintf(buf, len, "%s",
		 strcmp(name, "mon_host") == 0 && !*fake_conf(name) ? "10.0.0.9" : fake_conf(name));
	return 0;
}

int rados_connect(rados_t cluster)
{
	(void)cluster;
	nr_servers++;
	fake.connected = !fake.connect_error;
	return fake.connect_error;
}

void rados_shutdown(rados_t cluster)
{
	(void)cluster;
	assert(!fake.open);
	fake.connected = false;
}

int rados_getaddrs(rados_t cluster, char **ret)
{
	(void)cluster;
	return asprintf(ret, OWN "%u", nr_servers) < 0 ? -ENOMEM : 0;
}

void rados_buffer_free(char *buf)
{
	free(buf);
}

int rados_blocklist_add(rados_t cluster, char *address, uint32_t seconds)
{
	size_t len = strlen(fake.blocklisted);

	(void)cluster;
	assert(!fake.open && !seconds);
	if (fake.stranger) {
		fake.stranger--;
		return -EPERM;
	}
	if (!fake.blocklist_error)
		snprintf(fake.blocklisted + len, sizeof(fake.blocklisted) - len, "%s ", address);
	return fake.blocklist_error;
}

int rados_ioctx_create(rados_t cluster, const char *pool, rados_ioctx_t *ret)
{
	(void)cluster;
	*ret = &fake;
	return strcmp(pool, "pool") == 0 ? 0 : -ENOENT;
}

void rados_ioctx_destroy(rados_ioctx_t io)
{
	assert(io == &fake);
}

void rados_ioctx_set_namespace(rados_ioctx_t io, const char *name)
{
	assert(io == &fake && *name);
}

/* ---- an image ---- */

int rbd_namespace_exists(rados_ioctx_t io, const char *name, bool *exists)
{
	(void)io;
	*exists = strcmp(name, "ns") == 0;
	return 0;
}

static int open_image(const char *name, rbd_image_t *ret, const char *snapshot, bool read_only)
{
	if (fake.open_error)
		return fake.open_error;
	if (strcmp(name, "image") != 0 || (snapshot && strcmp(snapshot, "snap") != 0))
		return -ENOENT;
	assert(!fake.open);
	fake.open = true;
	fake.read_only = read_only;
	*ret = &fake;
	return 0;
}

int rbd_open(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snapshot)
{
	(void)io;
	return open_image(name, ret, snapshot, false);
}

int rbd_open_read_only(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snapshot)
{
	(void)io;
	return open_image(name, ret, snapshot, true);
}

int rbd_close(rbd_image_t image)
{
	assert(image == &fake && fake.open && !watcher);
	fake.open = fake.locked = false;
	return 0;
}

int rbd_get_size(rbd_image_t image, uint64_t *ret)
{
	assert(image == &fake);
	*ret = fake.size;
	return 0;
}

int rbd_get_features(rbd_image_t image, uint64_t *ret)
{
	assert(image == &fake);
	*ret = fake.features;
	return 0;
}

int rbd_get_stripe_unit(rbd_image_t image, uint64_t *ret)
{
	assert(image == &fake);
	*ret = 4U << 20;
	return 0;
}

int rbd_update_watch(rbd_image_t image, uint64_t *handle, rbd_update_callback_t cb, void *arg)
{
	assert(image == &fake && !fake.read_only);
	*handle = 1;
	watcher = cb;
	watcher_arg = arg;
	return 0;
}

int rbd_update_unwatch(rbd_image_t image, uint64_t handle)
{
	assert(image == &fake && handle == 1 && watcher);
	watcher = NULL;
	return 0;
}

int rbd_lock_acquire(rbd_image_t image, rbd_lock_mode_t mode)
{
	assert(image == &fake && mode == RBD_LOCK_MODE_EXCLUSIVE && !fake.read_only);
	fake.locked = !fake.lock_error;
	return fake.lock_error;
}

int rbd_lock_get_owners(rbd_image_t image, rbd_lock_mode_t *mode, char **owners, size_t *nr)
{
	assert(image == &fake && *nr >= 1);
	*mode = RBD_LOCK_MODE_EXCLUSIVE;
	owners[0] = strdup("10.0.0.7:0/7");
	*nr = 1;
	return 0;
}

void rbd_lock_get_owners_cleanup(char **owners, size_t nr)
{
	while (nr)
		free(owners[--nr]);
}

int rbd_config_image_list(rbd_image_t image, rbd_config_option_t *list, int *nr)
{
	static const char *const names[] = { "rbd_cache", "rbd_cache_policy",
					     "rbd_disable_zero_copy_writes",
					     "rbd_blocklist_on_break_lock" };
	int have = *nr;

	assert(image == &fake);
	*nr = 4;
	if (have < *nr)
		return -ERANGE;
	for (int i = 0; i < *nr; i++) {
		size_t len = strlen(names[i]);
		const char *own = fake.conf_image;

		list[i].name = strdup(names[i]);
		list[i].value = strdup(own && strncmp(own, names[i], len) == 0 && own[len] == '='
					       ? own + len + 1
					       : fake_conf(names[i]));
	}
	return 0;
}

void rbd_config_image_list_cleanup(rbd_config_option_t *list, int nr)
{
	for (int i = 0; i < nr; i++) {
		free(list[i].name);
		free(list[i].value);
	}
}

/* ---- I/O ---- */

struct completion {
	rbd_callback_t cb;
	void *arg;
	ssize_t res;
	unsigned int users; /* librbd, and who made it */
};

int rbd_aio_create_completion(void *arg, rbd_callback_t cb, rbd_completion_t *ret)
{
	struct completion *c = malloc(sizeof(*c));

	assert(c);
	*c = (struct completion){ cb, arg, 0, 1 };
	*ret = c;
	return 0;
}

ssize_t rbd_aio_get_return_value(rbd_completion_t completion)
{
	return ((struct completion *)completion)->res;
}

void rbd_aio_release(rbd_completion_t completion)
{
	struct completion *c = completion;

	if (__atomic_sub_fetch(&c->users, 1, __ATOMIC_ACQ_REL) == 0)
		free(c);
}

static void *complete(void *arg)
{
	struct completion *c = arg;

	usleep(100);
	c->cb(c, c->arg);
	rbd_aio_release(c);
	return NULL;
}

static int ask(rbd_image_t image, enum fake_call call, struct completion *c, ssize_t res)
{
	pthread_t thread;
	int err = fake.ask_error;

	assert(image == &fake && fake.open);
	fake.ask_error = 0;
	if (err)
		return err;
	fake.calls[call]++;
	c->res = fake.io_error ? fake.io_error : res;
	fake.io_error = 0;
	c->users++;
	assert(pthread_create(&thread, NULL, complete, c) == 0);
	assert(pthread_detach(thread) == 0);
	return 0;
}

/* Bytes; or -EINVAL. */
static ssize_t move(const struct iovec *iov, int nr, uint64_t offset, bool read)
{
	uint64_t at = offset;

	for (int i = 0; i < nr; at += iov[i++].iov_len) {
		if (at + iov[i].iov_len > fake.size)
			return -EINVAL;
		if (read)
			memcpy(iov[i].iov_base, fake.bytes + at, iov[i].iov_len);
		else
			memcpy(fake.bytes + at, iov[i].iov_base, iov[i].iov_len);
	}
	return (ssize_t)(at - offset);
}

static ssize_t read_some(const struct iovec *iov, int nr, uint64_t offset)
{
	ssize_t res = move(iov, nr, offset, true);

	if (res > 0 && fake.short_read)
		res -= 512;
	fake.short_read = false;
	return res;
}

int rbd_aio_read(rbd_image_t image, uint64_t offset, size_t len, char *buf, rbd_completion_t c)
{
	struct iovec iov = { buf, len };

	return ask(image, FAKE_READ, c, read_some(&iov, 1, offset));
}

int rbd_aio_readv(rbd_image_t image, const struct iovec *iov, int nr, uint64_t offset,
		  rbd_completion_t c)
{
	return ask(image, FAKE_READV, c, read_some(iov, nr, offset));
}

static ssize_t write_some(const struct iovec *iov, int nr, uint64_t offset)
{
	ssize_t res = fake.io_error ? 0 : move(iov, nr, offset, false);

	return res > 0 ? 0 : res;
}

int rbd_aio_write(rbd_image_t image, uint64_t offset, size_t len, const char *buf,
		  rbd_completion_t c)
{
	struct iovec iov = { (char *)buf, len };

	return ask(image, FAKE_WRITE, c, write_some(&iov, 1, offset));
}

int rbd_aio_writev(rbd_image_t image, const struct iovec *iov, int nr, uint64_t offset,
		   rbd_completion_t c)
{
	return ask(image, FAKE_WRITEV, c, write_some(iov, nr, offset));
}

int rbd_aio_flush(rbd_image_t image, rbd_completion_t c)
{
	return ask(image, FAKE_FLUSH, c, 0);
}

int rbd_aio_discard(rbd_image_t image, uint64_t offset, uint64_t len, rbd_completion_t c)
{
	assert(offset + len <= fake.size);
	return ask(image, FAKE_DISCARD, c, 0);
}

int rbd_aio_write_zeroes(rbd_image_t image, uint64_t offset, size_t len, rbd_completion_t c,
			 int zero_flags, int op_flags)
{
	assert(!op_flags && offset + len <= fake.size);
	memset(fake.bytes + offset, 0, len);
	fake.zero_flags = zero_flags;
	return ask(image, FAKE_ZEROES, c, 0);
}
