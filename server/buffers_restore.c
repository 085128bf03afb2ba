/* SPDX-License-Identifier: MIT */
/*
 * buffers_restore.c - take over the buffers of a server that died.
 *
 * The driver still has them and still matches requests with them, so each is
 * published under its index before the first request comes.  What the
 * predecessor had not finished is unfinished business for buffers_resume():
 *
 *   WAITING        nobody asked the driver: ask it now
 *   REGISTERING    the driver may have done it.  It gives the lowest free index
 *                  and nothing else was under way, so if it has, we know which;
 *   UNREGISTERING  and here it may have done that.
 *
 * In both cases nothing else can have that index, so it is published to be
 * safe, unregistered (if it is not there, the driver says so), and registered
 * again if somebody uses the buffer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffers_internal.h"
#include "common/log.h"

/* The client of uses that keep buffers until those who use them have asked again. */
static char holder;

#define NO_INDEX UINT32_MAX

static struct buffer *find_id(struct buffers *b, uint64_t id)
{
	struct buffer *buf = b->first;

	while (buf && buf->id != id)
		buf = buf->next;
	return buf;
}

static void nobody_answers(void *arg, void *client, uint32_t seq, int status,
			   enum wire_reason reason, unsigned int index, uint64_t len)
{
	(void)arg, (void)client, (void)seq, (void)status, (void)reason, (void)index, (void)len;
}

static int add_restored_use(struct buffer *buf, const struct use *like)
{
	struct use *use = malloc(sizeof(*use));

	if (!use)
		return -ENOMEM;
	*use = *like;
	use->next = buf->uses;
	buf->uses = use;
	return 0;
}

static int publish(struct buffers *b, struct buffer *buf, unsigned int index)
{
	buf->index = index;
	if (index >= b->indices)
		b->indices = index + 1;
	return registry_publish(b->registry, index, &buf->view);
}

int buffers_restore(struct buffers *b, const struct vault_record *r, int fd)
{
	struct use hold = { .client = &holder, .answer = nobody_answers };
	struct buffer_request req = {
		.fd = fd,
		.offset = r->buffer.offset,
		.len = r->buffer.len,
		.read_only = r->buffer.read_only,
	};
	struct buffer *buf;
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return -errno;
	ret = buffers_map(b, &st, &req, &buf);
	if (ret)
		return ret;
	buf->id = r->id;
	ret = add_restored_use(buf, &hold);
	if (ret)
		return ret;
	buf->index = NO_INDEX;
	switch (r->buffer.state) {
	case VAULT_LIVE:
		buf->state = LIVE;
		return publish(b, buf, r->buffer.index);
	case VAULT_UNREGISTERING:
		buf->state = UNREGISTERING;
		return publish(b, buf, r->buffer.index);
	case VAULT_REGISTERING:
		buf->state = UNREGISTERING; /* the index follows in buffers_restored() */
		return 0;
	default:
		buf->state = REGISTERING;
		return 0;
	}
}

int buffers_restore_use(struct buffers *b, const struct vault_record *r, void *client,
			uint64_t *ret_len)
{
	struct use use = { .client = client, .seq = r->use.seq, .id = r->id };
	struct buffer *buf = find_id(b, r->use.buffer);

	/* The predecessor died between the two records of a buffer's end. */
	if (!buf)
		return -ENOENT;
	*ret_len = buf->view.len;
	return add_restored_use(buf, &use);
}

static unsigned int lowest_free_index(const struct buffers *b)
{
	struct buffer_view view;
	unsigned int index = 0;

	while (registry_view(b->registry, index, &view))
		index++;
	return index;
}

int buffers_restored(struct buffers *b)
{
	for (struct buffer *buf = b->first; buf; buf = buf->next) {
		int ret;

		if (buf->state != UNREGISTERING)
			continue;
		ret = buf->index == NO_INDEX ? publish(b, buf, lowest_free_index(b)) : 0;
		if (ret)
			return ret;
		buffers_append_waiting(b, buf);
	}
	for (struct buffer *buf = b->first; buf; buf = buf->next)
		if (buf->state == REGISTERING)
			buffers_append_waiting(b, buf);
	return 0;
}

void buffers_resume(struct buffers *b)
{
	b->paused = false;
	buffers_forget_client(b, &holder);
	/* The predecessor may have died before it answered; twice does no harm. */
	for (struct buffer *buf = b->first; buf; buf = buf->next)
		if (buf->state == LIVE)
			buffers_answer_uses(b, buf, 0, WIRE_OK);
	buffers_ask_waiting(b);
}
