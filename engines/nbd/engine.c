/* SPDX-License-Identifier: MIT */
/* engine.c - the engine "nbd": an export of an NBD server, by libnbd.  Control thread. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "connector.h"
#include "inheritance.h"
#include "queue.h"

#define BLOCK_MAX 4096U /* of a block device */
#define MESSAGE 512
/*
 * Where memory is in pieces each is a command of its own, so that each must be whole blocks;
 * which is what any alignment asks for.  Clients' memory has this one in any case.
 */
#define MEMORY_ALIGN 4U

static int nbd_check(const struct ublkzc_target *target, char *why, size_t size)
{
	struct options o;

	return options_parse(target, &o, why, size);
}

/* ---- open ---- */

static int wrong(const struct disk *d, int err, const char *what)
{
	ublkzc_log(UBLKZC_LOG_ERROR, "%s: %s", d->target->path, what);
	return err;
}

static int set_blocks(struct disk *d)
{
	struct ublkzc_target *t = d->target;
	const struct export *e = &d->export;
	char why[MESSAGE];

	if (!t->block_size)
		t->block_size = e->minimum > 512 ? e->minimum : 512;
	if (e->minimum > t->block_size || t->block_size > BLOCK_MAX) {
		snprintf(why, sizeof(why),
			 "the server takes blocks of %u bytes and more; a block device has 512 to "
			 "%u, here %u (nbdkit --filter=blocksize, or --block-size)",
			 e->minimum, BLOCK_MAX, t->block_size);
		return wrong(d, -EINVAL, why);
	}
	if (e->maximum < BLOCK_MAX)
		return wrong(d, -EINVAL, "the server takes no 4096 bytes at once");
	if (e->maximum < t->max_io)
		t->max_io = e->maximum - e->maximum % BLOCK_MAX;
	t->size = e->size - e->size % t->block_size;
	return t->size ? 0 : wrong(d, -EINVAL, "the export has no bytes");
}

static int set_target(struct disk *d)
{
	struct ublkzc_target *t = d->target;
	const struct export *e = &d->export;
	enum cache_mode mode = d->options.cache;
	int ret = set_blocks(d);

	if (ret)
		return ret;
	if (mode == CACHE_WRITETHROUGH && !e->fua && !e->read_only)
		return wrong(d, -EOPNOTSUPP,
			     "the server has no FUA, which -o cache=writethrough is made of");
	if (d->nr_slots > 1 && !e->multi_conn)
		return wrong(
			d, -EINVAL,
			"the server does not say that several connections to the export see each "
			"other's writes (NBD_FLAG_CAN_MULTI_CONN): use one queue and -o "
			"connections=1");
	t->read_only |= e->read_only;
	t->memory_align = MEMORY_ALIGN;
	t->volatile_cache = e->flush && mode != CACHE_WRITETHROUGH;
	t->discard = e->trim;
	t->write_zeroes = e->zero;
	t->rotational = e->rotational;
	t->preferred = e->preferred;
	atomic_store(&d->size, t->size);
	return 0;
}

/* The first one says what the export is. */
static int first_connection(struct disk *d)
{
	struct slot *s = &d->slots[0];
	struct connection c;
	char why[MESSAGE];
	int ret = connection_make(d->target->path, d->stop_fd, &c, why, sizeof(why));

	for (unsigned int waited = 0; ret && d->fenced; waited += d->options.reconnect_delay) {
		/* A device is there already, and its I/O waits. */
		if (d->options.dead_timeout && waited >= d->options.dead_timeout)
			break;
		if (!waited)
			ublkzc_log(UBLKZC_LOG_WARNING, "%s: no connection, trying again: %s",
				   d->target->path, why);
		poll(NULL, 0, (int)d->options.reconnect_delay * 1000);
		ret = connection_make(d->target->path, d->stop_fd, &c, why, sizeof(why));
	}
	if (ret)
		return wrong(d, ret, why);
	d->export = c.export;
	s->handle = c.handle;
	s->size = c.export.size;
	s->watch = c.watch;
	atomic_store(&s->state, SLOT_READY);
	return 0;
}

static int allocate(struct disk *d)
{
	unsigned int nr_queues = d->target->nr_queues;

	d->slots = calloc(d->nr_slots, sizeof(*d->slots));
	if (!d->slots)
		return wrong(d, -ENOMEM, "no memory");
	for (unsigned int i = 0; i < d->nr_slots; i++)
		d->slots[i] = (struct slot){ .state = SLOT_WANTED, .watch = -1, .wake_fd = -1 };
	for (unsigned int queue = 0; queue < nr_queues; queue++) {
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		if (fd < 0)
			return wrong(d, -errno, strerror(errno));
		for (unsigned int i = 0; i < d->options.nr_connections; i++)
			d->slots[queue * d->options.nr_connections + i].wake_fd = fd;
	}
	d->work_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return d->work_fd < 0 || d->stop_fd < 0 ? wrong(d, -errno, strerror(errno)) : 0;
}

static int nbd_open(struct ublkzc_target *target)
{
	struct disk *d = calloc(1, sizeof(*d));
	char why[MESSAGE];
	int ret;

	if (!d)
		return -ENOMEM;
	*d = (struct disk){
		.target = target, .work_fd = -1, .stop_fd = -1, .parked = { .fd = -1 }
	};
	target->priv = d;
	ret = options_parse(target, &d->options, why, sizeof(why));
	if (ret) {
		ublkzc_log(UBLKZC_LOG_ERROR, "%s", why);
		return ret;
	}
	d->nr_slots = target->nr_queues * d->options.nr_connections;
	d->cache.tracked = d->options.cache == CACHE_VOLATILE;
	if ((ret = allocate(d)) || (ret = inheritance_end(d)) || (ret = first_connection(d)))
		return ret;
	d->cache.tracked &= d->export.flush;
	ret = set_target(d);
	return ret ? ret : connector_start(d);
}

static int nbd_fence(struct ublkzc_target *target)
{
	return inheritance_wait(target->priv);
}

/* ---- later ---- */

/*
 * A server tells the size when one connects, and libnbd knows no other way.  Connections that are
 * older are made anew when they are asked for what is beyond: link.c.
 */
static int nbd_grow(struct ublkzc_target *target, uint64_t *size)
{
	struct disk *d = target->priv;
	struct connection c;
	char why[MESSAGE];
	uint64_t now;
	int ret = connection_make(target->path, -1, &c, why, sizeof(why));

	if (ret)
		return wrong(d, ret, why);
	now = c.export.size - c.export.size % target->block_size;
	connection_end(&c);
	if (*size > now) {
		snprintf(why, sizeof(why),
			 "the export has %llu bytes, and its server makes it larger",
			 (unsigned long long)now);
		return wrong(d, -EINVAL, why);
	}
	if (!*size)
		*size = now;
	if (*size > atomic_load(&d->size))
		atomic_store(&d->size, *size);
	return 0;
}

static void free_slots(struct disk *d)
{
	for (unsigned int i = 0; i < d->nr_slots; i++) {
		struct slot *s = &d->slots[i];

		if (atomic_load(&s->state) == SLOT_READY)
			connection_take_leave(s->handle);
		if (s->watch >= 0)
			close(s->watch);
		if (s->wake_fd >= 0 && i % d->options.nr_connections == 0)
			close(s->wake_fd);
	}
	free(d->slots);
}

static void nbd_close_disk(struct ublkzc_target *target)
{
	struct disk *d = target->priv;

	if (!d)
		return;
	connector_stop(d);
	if (d->slots)
		free_slots(d);
	if (d->work_fd >= 0)
		close(d->work_fd);
	if (d->stop_fd >= 0)
		close(d->stop_fd);
	if (d->parked.fd >= 0)
		close(d->parked.fd);
	target->fd = -1;
	target->priv = NULL;
	free(d);
}

/* TLS reads and writes the data; without it nothing but system calls does. */
static const struct ublkzc_engine engine = {
	.size = sizeof(engine),
	.flags = UBLKZC_TOUCHES_DATA,
	.name = "nbd",
	.summary = "an export of an NBD server, by TCP or unix socket, with TLS if the URI says so",
	.argument = "URI",
	.options = option_list,
	.check = nbd_check,
	.open = nbd_open,
	.fence = nbd_fence,
	.grow = nbd_grow,
	.close = nbd_close_disk,
	.queue_open = nbd_queue_open,
	.queue_close = nbd_queue_close,
	.submit = nbd_submit,
	.ready = nbd_ready,
};

UBLKZC_ENGINE(engine);
