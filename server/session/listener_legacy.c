/* SPDX-License-Identifier: MIT */
/* listener_legacy.c - the older protocol: one byte and a memfd in, an index out. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "server/life/closer.h"
#include "listener_internal.h"

static void legacy_reply(struct client *c, int32_t index)
{
	if (send(c->fd, &index, sizeof(index), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(index))
		hang_up(c);
}

void legacy_serve(struct listener *l, struct client *c)
{
	struct buffer_request add = { .client = c, .account = &c->account };
	enum wire_reason reason;
	struct wire_fds got;
	struct stat st;
	char byte;
	long len = listener_receive(l, c, &byte, 1, &got);
	int ret = -EPROTO;

	if (len == -EAGAIN || len == -EINTR)
		return;
	if (len <= 0 || c->greeted) {
		hang_up(c);
		closer_close(c->uid, got.fds, got.nr);
		return;
	}
	c->greeted = true;
	listener_note(l, c, c->fd);
	add.owner = c->id;
	if (got.nr == 1 && !got.cut) {
		add.fd = got.fds[0];
		/* Of a memfd only: another file system's server (FUSE) may never answer. */
		if (fcntl(add.fd, F_GET_SEALS) >= 0 && fstat(add.fd, &st) == 0)
			add.len = (uint64_t)st.st_size;
		ret = listener_add_memory(l, c, &add, &reason);
	}
	if (ret) {
		l->refused++;
		legacy_reply(c, ret);
		hang_up(c);
	}
	closer_close(c->uid, got.fds, got.nr);
}

/*
 * Such clients close the connection once they have their index, so the lease
 * goes over to the process itself.
 */
static void lease_to_process(struct listener *l, struct client *c)
{
	if (c->pidfd < 0) {
		hang_up(c);
		return;
	}
	listener_disconnect(l, c);
	c->fd = c->pidfd; /* of the process that connected, not of its number now */
	c->pidfd = -1;
	c->legacy_lease = true;
	listener_note(l, c, c->fd);
	if (listener_watch(l, c->fd, c) < 0)
		hang_up(c);
}

void legacy_answer(struct listener *l, struct client *c, int status, unsigned int index)
{
	legacy_reply(c, status ? status : (int32_t)index);
	if (!status && !c->closing)
		lease_to_process(l, c);
}
