/* SPDX-License-Identifier: MIT */
/* inheritance.c - see inheritance.h. */
#include "inheritance.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define END_SECONDS 60 /* for all of them; then another server tries */
#define UNKNOWN_SECONDS 10

static void server_gone(struct disk *d)
{
	/* How much the dead server had written is not known. */
	cache_wrote(&d->cache);
	if (cache_server_gone(&d->cache, cache_covers(&d->cache)))
		ublkzc_log(
			UBLKZC_LOG_ERROR,
			"%s: its server may have ended with writes that were not flushed: the next "
			"flush fails (docs/engines.md, cache=)",
			d->target->path);
}

/* False: they do not end in time. */
static bool await_ends(const int *fds, int nr, bool *by_server)
{
	unsigned int left = END_SECONDS;

	for (int i = 0; i < nr; i++) {
		bool half_closed = false;
		enum end end;

		while ((end = connection_await_end(fds[i], &half_closed, 1, -1)) == NOT_ENDED)
			if (!left--)
				return false;
		*by_server |= end == ENDED_BY_SERVER;
	}
	return true;
}

int inheritance_end(struct disk *d)
{
	int ret = parked_open(&d->parked, d->target->fd);
	bool inherits = d->target->fd >= 0;
	bool by_server = false;
	int *fds = NULL;

	if (!ret && inherits)
		ret = parked_inherit(&d->parked, &fds);
	if (ret < 0) {
		ublkzc_log(UBLKZC_LOG_ERROR, "%s: sockets for successors: %s", d->target->path,
			   strerror(-ret));
		return ret;
	}
	d->target->fd = d->parked.fd;
	if (!inherits)
		return 0;
	d->fenced = await_ends(fds, fds ? ret : 0, &by_server);
	if (!d->fenced)
		ublkzc_log(UBLKZC_LOG_ERROR,
			   "%s: the server does not end connections of a dead server of this "
			   "device in %d "
			   "seconds, so what was asked on them may still come",
			   d->target->path, END_SECONDS);
	if (by_server || !ret)
		server_gone(d);
	while (fds && ret > 0)
		close(fds[--ret]);
	free(fds);
	return d->fenced ? 0 : -ETIMEDOUT;
}

int inheritance_wait(struct disk *d)
{
	if (d->fenced)
		return 0;
	ublkzc_log(
		UBLKZC_LOG_WARNING,
		"%s: nothing is known of what the dead server had asked: waiting %d seconds for it",
		d->target->path, UNKNOWN_SECONDS);
	poll(NULL, 0, UNKNOWN_SECONDS * 1000);
	server_gone(d);
	d->fenced = true;
	return 0;
}
