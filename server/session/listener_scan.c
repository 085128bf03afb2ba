/* SPDX-License-Identifier: MIT */
/* listener_scan.c - SCAN: memory that a client shares itself. */
#include <errno.h>

#include "listener_internal.h"

/* A later SCAN that overtook this one is answered with it. */
static void scanned(struct scan *s, void *arg)
{
	struct client *c = s->done_arg;
	struct wire_reply reply;

	(void)arg;
	if (!c->scan_asked)
		return;
	c->scan_asked = false;
	listener_answered(c->listener, c);
	wire_reply_init(&reply, WIRE_SCAN, c->scan_seq);
	reply.index = s->nr;
	reply.max_bytes = scan_bytes(s);
	reply.refused = s->refused;
	reply.reason = (uint16_t)s->why;
	listener_reply(c->listener, c, &reply);
}

void scan_requested(struct listener *l, struct client *c, const struct wire_request *req)
{
	if (l->sealed_only) {
		listener_refuse(l, c, req, -EOPNOTSUPP, WIRE_NO_FEATURE);
		return;
	}
	if (c->pidfd < 0) {
		listener_refuse(l, c, req, -ESRCH, WIRE_NO_PROCESS);
		return;
	}
	if (!c->scans) {
		c->scans = true;
		listener_note(l, c, -1);
	}
	c->scan_seq = req->seq;
	c->scan_asked = true;
	if (scan_again(l, c) == 0)
		return;
	c->scan_asked = false;
	listener_refuse(l, c, req, -ENOMEM, WIRE_NO_MEMORY);
}

int scan_again(struct listener *l, struct client *c)
{
	c->listener = l;
	c->scan.done = scanned;
	c->scan.done_arg = c;
	return scan_start(&c->scan, c->uid, c->pid, c->pidfd);
}
