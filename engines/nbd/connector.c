/* SPDX-License-Identifier: MIT */
/*
 * connector.c - see connector.h.
 *
 * Before a connection is made anew, what was asked on the old one is over.  Else a write that
 * the server still has would come after the same write, asked again, and after whatever was
 * written to the same place then.
 */
#include "connector.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE 512

static void signal_fd(int fd)
{
	uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool connector_same(const struct disk *d, const struct export *now, char *why, size_t size)
{
	const struct export *was = &d->export;
	const struct ublkzc_target *t = d->target;
	uint64_t bytes = atomic_load(&d->size);

	if (now->size < bytes)
		snprintf(why, size, "the export has shrunk from %llu to %llu bytes",
			 (unsigned long long)bytes, (unsigned long long)now->size);
	else if (now->minimum > t->block_size || now->maximum < t->max_io)
		snprintf(why, size, "the export takes requests of %u to %u bytes, and did %u to %u",
			 now->minimum, now->maximum, t->block_size, t->max_io);
	else if (now->read_only && !t->read_only)
		snprintf(why, size, "the export is read-only, and was not");
	else if (now->flush < was->flush || now->fua < was->fua || now->trim < was->trim ||
		 now->zero < was->zero)
		snprintf(why, size,
			 "the export offers less than it did (flush, FUA, trim, write-zeroes)");
	else if (!now->multi_conn && d->nr_slots > 1)
		snprintf(why, size, "the export does not allow several connections, and did");
	else
		return true;
	return false;
}

/* ---- one connection ---- */

/* A successor has the sockets of all that may have requests under way. */
static int park(struct disk *d)
{
	int fds[SLOTS_MAX];
	unsigned int nr = 0;

	for (unsigned int i = 0; i < d->nr_slots; i++)
		if (d->slots[i].watch >= 0)
			fds[nr++] = d->slots[i].watch;
	return parked_set(&d->parked, fds, nr);
}

static int connect_slot(struct disk *d, struct slot *s, char *why, size_t size)
{
	struct connection c;
	int ret = connection_make(d->target->path, d->stop_fd, &c, why, size);

	if (ret)
		return ret;
	if (connector_same(d, &c.export, why, size)) {
		s->watch = c.watch;
		s->half_closed = false;
		ret = park(d);
		if (!ret) {
			s->handle = c.handle;
			s->size = c.export.size;
			atomic_store(&s->state, SLOT_READY);
			return 0;
		}
		snprintf(why, size, "its socket cannot be kept for a successor: %s",
			 strerror(-ret));
		s->watch = -1;
	} else {
		ret = -ENXIO;
	}
	connection_end(&c);
	return ret;
}

/* True: nothing that was asked on it is under way any more. */
static bool old_one_is_over(struct disk *d, struct slot *s)
{
	enum end end;

	if (s->watch < 0)
		return true;
	end = connection_await_end(s->watch, &s->half_closed, 1, d->stop_fd);
	if (end == NOT_ENDED)
		return false;
	if (end == ENDED_BY_SERVER && !atomic_load(&s->polite) &&
	    cache_server_gone(&d->cache, s->written))
		ublkzc_log(UBLKZC_LOG_ERROR,
			   "%s: the server had acknowledged writes that were not flushed when the "
			   "connection ended; the next flush fails (docs/engines.md, cache=)",
			   d->target->path);
	close(s->watch);
	s->watch = -1;
	return true;
}

/* Once for each loss, and when it is over. */
static void complain(struct disk *d, struct slot *s, const char *why)
{
	if (!s->complained)
		ublkzc_log(UBLKZC_LOG_WARNING, "%s: no connection, trying again: %s",
			   d->target->path, why);
	s->complained = true;
}

static bool remake(struct disk *d, struct slot *s)
{
	char why[MESSAGE];

	if (!old_one_is_over(d, s)) {
		complain(d, s, "the server does not end the one that was lost");
		return false;
	}
	if (connect_slot(d, s, why, sizeof(why))) {
		complain(d, s, why);
		return false;
	}
	if (s->complained || !atomic_load(&s->polite))
		ublkzc_log(UBLKZC_LOG_WARNING, "%s: connected again", d->target->path);
	s->complained = false;
	atomic_store(&s->polite, false);
	signal_fd(s->wake_fd);
	return true;
}

/* ---- all of them ---- */

static bool stopped(const struct disk *d)
{
	struct pollfd fd = { d->stop_fd, POLLIN, 0 };

	return poll(&fd, 1, 0) > 0;
}

static void await_work(struct disk *d, bool again)
{
	struct pollfd fds[2] = { { d->stop_fd, POLLIN, 0 }, { d->work_fd, POLLIN, 0 } };
	uint64_t n;

	/* What failed is not tried sooner because something else is wanted. */
	poll(fds, again ? 1 : 2, again ? (int)d->options.reconnect_delay * 1000 : -1);
	if (fds[1].revents && read(d->work_fd, &n, sizeof(n)) < 0)
		return;
}

static void *connector_main(void *arg)
{
	struct disk *d = arg;
	bool again = false;

	pthread_setname_np(pthread_self(), "ublkzc-nbd");
	while (!stopped(d)) {
		await_work(d, again);
		again = false;
		for (unsigned int i = 0; i < d->nr_slots && !stopped(d); i++)
			if (atomic_load(&d->slots[i].state) == SLOT_WANTED)
				again |= !remake(d, &d->slots[i]);
	}
	return NULL;
}

void connector_want(struct disk *d, struct slot *s)
{
	s->handle = NULL;
	/* What other connections acknowledge from here on, the next server has. */
	s->written = cache_covers(&d->cache);
	atomic_store(&s->state, SLOT_WANTED);
	signal_fd(d->work_fd);
}

int connector_start(struct disk *d)
{
	char why[MESSAGE];
	int ret;

	for (unsigned int i = 0; i < d->nr_slots; i++) {
		if (atomic_load(&d->slots[i].state) == SLOT_READY)
			continue;
		ret = connect_slot(d, &d->slots[i], why, sizeof(why));
		if (ret) {
			ublkzc_log(UBLKZC_LOG_ERROR, "%s: connection %u of %u: %s", d->target->path,
				   i + 1, d->nr_slots, why);
			return ret;
		}
	}
	ret = -pthread_create(&d->connector, NULL, connector_main, d);
	if (ret)
		ublkzc_log(UBLKZC_LOG_ERROR, "%s: a thread that connects: %s", d->target->path,
			   strerror(-ret));
	d->has_connector = !ret;
	return ret;
}

void connector_stop(struct disk *d)
{
	if (!d->has_connector)
		return;
	signal_fd(d->stop_fd);
	pthread_join(d->connector, NULL);
	d->has_connector = false;
}
