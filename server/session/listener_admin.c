/* SPDX-License-Identifier: MIT */
/* listener_admin.c - what root asks: who holds what, ATTACH, RESIZE, STOP, UPGRADE. */
#include <errno.h>
#include <unistd.h>

#include "listener_internal.h"

/* Seconds that root may stay connected without HELLO: much memory takes long. */
#define ADMIN_PATIENCE 600

void listener_attached(void *arg, void *client, uint32_t seq, pid_t pid)
{
	struct listener *l = arg;
	struct attach_info info;
	struct wire_reply reply;

	((struct client *)client)->attaching = false;
	if (attach_find(&l->attachments, pid, &info))
		return;
	wire_reply_init(&reply, WIRE_ATTACH, seq);
	reply.index = info.buffers;
	reply.max_bytes = info.bytes;
	reply.processes = info.processes;
	reply.refused = info.refused;
	reply.reason = (uint16_t)info.why;
	listener_reply(l, client, &reply);
}

static void attach(struct listener *l, struct client *c, const struct wire_request *req)
{
	int ret;

	if (l->sealed_only) {
		listener_refuse(l, c, req, -EOPNOTSUPP, WIRE_NO_FEATURE);
		return;
	}
	c->attaching = true; /* attach_add() may answer at once */
	ret = req->pid ? attach_add(&l->attachments, (pid_t)req->pid, c, req->seq) : -ESRCH;
	if (ret)
		c->attaching = false;
	if (ret == -ESRCH || ret == -EINVAL)
		listener_refuse(l, c, req, -ESRCH, WIRE_NO_PROCESS);
	else if (ret)
		listener_refuse(l, c, req, ret, ret == -EUSERS ? WIRE_OVER_BUDGET : WIRE_NO_MEMORY);
}

static void detach(struct listener *l, struct client *c, const struct wire_request *req)
{
	struct wire_reply reply;

	if (attach_remove(&l->attachments, (pid_t)req->pid)) {
		listener_refuse(l, c, req, -ENOENT, WIRE_NOT_ATTACHED);
		return;
	}
	wire_reply_init(&reply, req->type, req->seq);
	listener_reply(l, c, &reply);
}

static void attached(struct listener *l, struct client *c, const struct wire_request *req)
{
	struct wire_reply reply;
	struct attach_info info = { 0 };

	wire_reply_init(&reply, req->type, req->seq);
	/* The end of the list is an answer, not a refusal. */
	reply.status = attach_get(&l->attachments, req->index, &info);
	reply.pid = (uint32_t)info.pid;
	reply.index = info.buffers;
	reply.max_bytes = info.bytes;
	reply.processes = info.processes;
	reply.refused = info.refused;
	listener_reply(l, c, &reply);
}

/* Whoever has proved access; who has not holds nothing. */
static const struct client *client_from(const struct listener *l, uint32_t number)
{
	const struct client *found = NULL;

	for (const struct client *c = l->first; c; c = c->next)
		if ((c->greeted || c->legacy_lease) && !c->closing && c->number >= number &&
		    (!found || c->number < found->number))
			found = c;
	return found;
}

static void clients(struct listener *l, struct client *c, const struct wire_request *req)
{
	const struct client *found = client_from(l, req->index);
	struct wire_reply reply;

	wire_reply_init(&reply, req->type, req->seq);
	reply.status = found ? 0 : -ENOENT; /* the end of the list is an answer */
	reply.processes = (uint32_t)c->pid;
	if (found) {
		reply.index = found->number;
		reply.pid = (uint32_t)found->pid;
		reply.user = found->uid;
		reply.max_buffers = found->nr_buffers + found->scan.nr;
		reply.max_bytes = found->account.bytes + found->scan.account.bytes;
		reply.refused = found->refused;
		reply.reason = (uint16_t)found->why;
	}
	listener_reply(l, c, &reply);
}

static void resize(struct listener *l, struct client *c, const struct wire_request *req)
{
	enum wire_reason reason = WIRE_NO_RESIZE;
	struct wire_reply reply;

	wire_reply_init(&reply, req->type, req->seq);
	reply.max_bytes = req->length;
	reply.status = l->resize ? l->resize(l->host, &reply.max_bytes, &reason) : -EOPNOTSUPP;
	reply.reason = (uint16_t)(reply.status ? reason : WIRE_OK);
	listener_reply(l, c, &reply);
}

static void stop(struct listener *l, struct client *c, const struct wire_request *req)
{
	struct wire_reply reply;

	if (!l->stop) {
		listener_refuse(l, c, req, -EOPNOTSUPP, WIRE_NOT_ALLOWED);
		return;
	}
	wire_reply_init(&reply, req->type, req->seq);
	listener_reply(l, c, &reply);
	l->stop(l->host);
}

void listener_await_upgrade(struct client *c, uint32_t seq)
{
	c->upgrade_asked = true;
	c->upgrade_seq = seq;
	c->deadline += ADMIN_PATIENCE;
}

static void upgrade(struct listener *l, struct client *c, const struct wire_request *req)
{
	enum wire_reason reason = WIRE_NO_KEEPER;
	int ret = l->upgrade ? l->upgrade(l->host, &reason) : -EOPNOTSUPP;

	if (ret)
		listener_refuse(l, c, req, ret, reason);
	else
		listener_await_upgrade(c, req->seq);
}

bool listener_awaits_upgrade(const struct listener *l)
{
	const struct client *c = l->first;

	while (c && (!c->upgrade_asked || c->closing))
		c = c->next;
	return c;
}

void listener_upgraded(struct listener *l, int status, enum wire_reason reason)
{
	for (struct client *c = l->first; c; c = c->next) {
		struct wire_reply reply;

		if (!c->upgrade_asked)
			continue;
		c->upgrade_asked = false;
		listener_answered(l, c);
		wire_reply_init(&reply, WIRE_UPGRADE, c->upgrade_seq);
		reply.status = status;
		reply.reason = (uint16_t)reason;
		listener_reply(l, c, &reply);
	}
}

/* Root's requests, by type. */
static const struct {
	uint16_t type;
	void (*serve)(struct listener *l, struct client *c, const struct wire_request *req);
} admin[] = {
	{ WIRE_ATTACH, attach },   { WIRE_DETACH, detach }, { WIRE_ATTACHED, attached },
	{ WIRE_RESIZE, resize },   { WIRE_STOP, stop },	    { WIRE_UPGRADE, upgrade },
	{ WIRE_CLIENTS, clients },
};

bool admin_requested(struct listener *l, struct client *c, const struct wire_request *req)
{
	unsigned int i = 0;

	while (i < sizeof(admin) / sizeof(admin[0]) && admin[i].type != req->type)
		i++;
	if (i == sizeof(admin) / sizeof(admin[0]))
		return false;
	c->deadline += ADMIN_PATIENCE;
	if (c->uid != 0 && c->uid != geteuid()) {
		listener_refuse(l, c, req, -EPERM, WIRE_NOT_ALLOWED);
		hang_up(c);
	} else {
		admin[i].serve(l, c, req);
	}
	return true;
}
