/* SPDX-License-Identifier: MIT */
/*
 * listener_restore.c - take over the clients of a server that died.
 *
 * Their connections never broke: the keeper has held them.  What they sent
 * meanwhile waits in the socket.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/closer.h"
#include "listener_internal.h"

void listener_note(struct listener *l, struct client *c, int fd)
{
	struct vault_record r = {
		.id = c->id,
		.kind = VAULT_CLIENT,
		.client = { .pid = c->pid,
			    .uid = c->uid,
			    .legacy = c->legacy,
			    .lease = c->legacy_lease,
			    .scans = c->scans,
			    .may_write = c->may_write,
			    .greeted = c->greeted },
	};

	if (c->upgrade_asked) {
		r.client.asks = WIRE_UPGRADE;
		r.client.seq = c->upgrade_seq;
	} else if (c->scan_asked) {
		r.client.asks = WIRE_SCAN;
		r.client.seq = c->scan_seq;
	}

	vault_put(l->vault, &r, fd);
	c->id = r.id;
	c->asks_noted = r.client.asks;
}

void listener_answered(struct listener *l, struct client *c)
{
	if (c->asks_noted)
		listener_note(l, c, -1);
}

struct client *listener_find(const struct listener *l, uint64_t id)
{
	struct client *c = l->first;

	while (c && c->id != id)
		c = c->next;
	return c;
}

static int restore_client(struct listener *l, const struct vault_record *r, int fd)
{
	struct ucred cred = { .pid = r->client.pid, .uid = r->client.uid };
	struct client *c = listener_new_client(l, fd, &cred);

	if (!c) {
		closer_hang_up(r->client.uid, fd);
		return -ENOMEM;
	}
	c->id = r->id;
	c->greeted = r->client.greeted;
	c->legacy = r->client.legacy;
	c->legacy_lease = r->client.lease;
	c->scans = r->client.scans;
	c->may_write = r->client.may_write;
	c->scan_asked = r->client.asks == WIRE_SCAN;
	c->scan_seq = r->client.seq;
	c->asks_noted = r->client.asks;
	if (r->client.asks == WIRE_UPGRADE)
		listener_await_upgrade(c, r->client.seq);
	return 0;
}

void listener_restore(struct listener *l, const struct vault_record *r, int fd)
{
	pid_t pid = r->kind == VAULT_CLIENT ? r->client.pid : r->attached.pid;
	int ret = r->kind == VAULT_CLIENT ? restore_client(l, r, fd)
					  : attach_restore(&l->attachments, r, fd);

	if (!ret)
		return;
	/* Better without this one than no server. */
	log_error(ret, "process %d cannot be taken over: it is copied from now on", (int)pid);
	vault_drop(l->vault, r->id);
}

struct account *listener_restore_use(struct client *c)
{
	c->nr_buffers++;
	return &c->account;
}

void listener_leave(struct listener *l)
{
	for (struct client *c = l->first; c; c = c->next) {
		if (c->closing || c->attaching || c->legacy_lease)
			continue;
		if (!c->id)
			listener_note(l, c, c->fd);
		else if (c->scan_asked || c->upgrade_asked)
			listener_note(l, c, -1);
	}
}

void listener_resume(struct listener *l)
{
	for (struct client *c = l->first; c; c = c->next)
		if (c->scans && c->pidfd >= 0)
			scan_again(l, c);
	attach_look_again(&l->attachments);
}
