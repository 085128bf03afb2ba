/* SPDX-License-Identifier: MIT */
/*
 * buffers.c - see the picture in buffers.h.
 *
 * Invariant: a buffer is published exactly while the kernel may name its
 * index, so a queue thread never finds an index without its memory.  The kernel
 * may give an index to the next buffer before we have read that the last one
 * is unregistered; so nothing is registered while an unregistration is under
 * way, or a queue thread could take the old buffer's memory for the new one's.
 */
#include "buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "buffers_internal.h"
#include "common/log.h"
#include "fault.h"

static void unlink_buffer(struct buffers *b, struct buffer *buf)
{
	struct buffer **link = &b->first;

	while (*link != buf)
		link = &(*link)->next;
	*link = buf->next;
	b->nr--;
	b->bytes -= buf->view.len;
}

static void free_use(struct buffers *b, struct use *use)
{
	vault_drop(b->vault, use->id);
	free(use);
}

static void free_buffer(struct buffers *b, struct buffer *buf)
{
	unlink_buffer(b, buf);
	while (buf->uses) {
		struct use *use = buf->uses;

		buf->uses = use->next;
		free_use(b, use);
	}
	munmap(buf->view.base, buf->view.len);
	vault_drop(b->vault, buf->id);
	free(buf);
}

void buffers_answer_uses(struct buffers *b, struct buffer *buf, int status, enum wire_reason reason)
{
	for (struct use *use = buf->uses; use; use = use->next) {
		if (use->answered)
			continue;
		use->answered = true;
		(use->answer ? use->answer : b->answer)(
			use->answer ? use->answer_arg : b->answer_arg, use->client, use->seq,
			status, reason, buf->index, buf->view.len);
	}
}

static void refuse(struct buffers *b, struct buffer *buf, int err)
{
	buffers_answer_uses(b, buf, err,
			    err == -EOPNOTSUPP ? WIRE_NO_FEATURE : WIRE_KERNEL_REFUSED);
	free_buffer(b, buf);
}

/* ---- asking the kernel ---- */

/* For the successor: what is about to happen, or has happened, to @buf. */
void buffers_note(struct buffers *b, struct buffer *buf, enum vault_buffer_state state, int fd)
{
	struct vault_record r = {
		.id = buf->id,
		.kind = VAULT_BUFFER,
		.buffer = { .offset = buf->offset,
			    .len = buf->view.len,
			    .index = buf->index,
			    .state = (uint8_t)state,
			    .read_only = buf->view.read_only },
	};

	vault_put(b->vault, &r, fd);
	buf->id = r.id;
}

static int ask_unregister(struct buffers *b, struct buffer *buf)
{
	int ret;

	buffers_note(b, buf, VAULT_UNREGISTERING, -1);
	FAULT_POINT("unregistering");
	ret = b->backend.unreg(b->backend.arg, buf->index, buf);
	if (!ret) {
		b->unregistering++;
		return 0;
	}
	/* It stays registered and mapped, which is safe; and is said. */
	log_error(ret, "unregister buffer %u", buf->index);
	buffers_note(b, buf, VAULT_LIVE, -1);
	buf->state = LIVE;
	return ret;
}

static int ask_register(struct buffers *b, struct buffer *buf)
{
	int ret;

	buf->reg = (struct uapi_shmem_buf_reg){
		.addr = (uintptr_t)buf->view.base,
		.len = buf->view.len,
		.flags = buf->view.read_only ? UAPI_SHMEM_BUF_READ_ONLY : 0,
	};
	buffers_note(b, buf, VAULT_REGISTERING, -1);
	FAULT_POINT("registering");
	ret = b->backend.reg(b->backend.arg, &buf->reg, buf);
	FAULT_POINT("asked");
	if (!ret)
		b->registering++;
	return ret;
}

/* May @buf's turn come now? */
static bool may_ask(const struct buffers *b, const struct buffer *buf)
{
	if (b->paused || b->registering)
		return false;
	return b->unregistering < (buf->state == UNREGISTERING ? UNREGISTERING_MAX : 1);
}

void buffers_append_waiting(struct buffers *b, struct buffer *buf)
{
	buf->next_waiting = NULL;
	if (b->last_waiting)
		b->last_waiting->next_waiting = buf;
	else
		b->first_waiting = buf;
	b->last_waiting = buf;
}

void buffers_ask_waiting(struct buffers *b)
{
	struct buffer *buf;

	while ((buf = b->first_waiting) && may_ask(b, buf)) {
		int ret;

		b->first_waiting = buf->next_waiting;
		if (!b->first_waiting)
			b->last_waiting = NULL;
		if (buf->state == UNREGISTERING) {
			ask_unregister(b, buf);
			continue;
		}
		ret = buf->uses ? ask_register(b, buf) : -ECANCELED;
		if (ret)
			refuse(b, buf, ret);
	}
}

void buffers_pause(struct buffers *b, bool paused)
{
	b->paused = paused;
	buffers_ask_waiting(b);
}

bool buffers_idle(const struct buffers *b)
{
	return !b->registering && !b->unregistering;
}

static void start_unregister(struct buffers *b, struct buffer *buf)
{
	buf->state = UNREGISTERING;
	buffers_append_waiting(b, buf);
	buffers_ask_waiting(b);
}

/* An error that is known at once is returned, and then nothing was asked. */
static int start_register(struct buffers *b, struct buffer *buf)
{
	buf->state = REGISTERING;
	if (!b->first_waiting && may_ask(b, buf))
		return ask_register(b, buf);
	buffers_append_waiting(b, buf);
	return 0;
}

static void registered(struct buffers *b, struct buffer *buf, int res)
{
	b->registering--;
	if (res < 0) {
		refuse(b, buf, res);
		return;
	}
	buf->index = (unsigned int)res;
	if (buf->index >= b->indices)
		b->indices = buf->index + 1;
	FAULT_POINT("registered");
	if (registry_publish(b->registry, buf->index, &buf->view))
		log_line(LOG_ERROR, "the kernel named index %u twice", buf->index);
	buf->state = LIVE;
	buffers_note(b, buf, VAULT_LIVE, -1);
	FAULT_POINT("live");
	if (buf->uses)
		buffers_answer_uses(b, buf, 0, WIRE_OK);
	else
		start_unregister(b, buf);
}

static void unregistered(struct buffers *b, struct buffer *buf, int res)
{
	int ret;

	b->unregistering--;
	FAULT_POINT("unregistered");
	if (res == -EINTR || res == -EAGAIN) {
		start_unregister(b, buf);
		return;
	}
	if (res && res != -ENOENT && res != -ENODEV) {
		/* Still in the driver, so it stays published and mapped, and
		 * serves whoever wants it again. */
		log_error(res, "unregister buffer %u", buf->index);
		buf->state = LIVE;
		buffers_note(b, buf, VAULT_LIVE, -1);
		buffers_answer_uses(b, buf, 0, WIRE_OK);
		return;
	}
	registry_withdraw(b->registry, buf->index);
	if (!buf->uses) {
		free_buffer(b, buf);
		return;
	}
	buffers_note(b, buf, VAULT_WAITING, -1);
	ret = start_register(b, buf);
	if (ret)
		refuse(b, buf, ret);
}

void buffers_finished(struct buffers *b, void *cookie, int res)
{
	struct buffer *buf = cookie;

	if (buf->state == REGISTERING)
		registered(b, buf, res);
	else
		unregistered(b, buf, res);
	buffers_ask_waiting(b);
}

/* ---- adding and removing ---- */

static struct buffer *find(struct buffers *b, const struct stat *st,
			   const struct buffer_request *req)
{
	for (struct buffer *buf = b->first; buf; buf = buf->next)
		if (buf->dev == st->st_dev && buf->ino == st->st_ino &&
		    buf->offset == req->offset && buf->view.len == req->len &&
		    buf->view.read_only == req->read_only)
			return buf;
	return NULL;
}

int buffers_map(struct buffers *b, const struct stat *st, const struct buffer_request *req,
		struct buffer **ret)
{
	int prot = req->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
	struct buffer *buf = calloc(1, sizeof(*buf));
	void *map;

	if (!buf)
		return -ENOMEM;
	map = mmap(NULL, req->len, prot, MAP_SHARED, req->fd, (off_t)req->offset);
	if (map == MAP_FAILED) {
		int err = -errno;

		free(buf);
		return err;
	}
	buf->dev = st->st_dev;
	buf->ino = st->st_ino;
	buf->offset = req->offset;
	buf->view = (struct buffer_view){ map, req->len, req->read_only };
	buf->next = b->first;
	b->first = buf;
	b->nr++;
	b->bytes += req->len;
	*ret = buf;
	return 0;
}

static int add_buffer(struct buffers *b, const struct stat *st, const struct buffer_request *req,
		      struct buffer **ret, enum wire_reason *ret_reason)
{
	int err;

	*ret_reason = WIRE_OVER_BUDGET;
	if (req->len > b->max_bytes - b->bytes)
		return -EDQUOT;
	*ret_reason = WIRE_NO_MEMORY;
	err = buffers_map(b, st, req, ret);
	if (!err)
		buffers_note(b, *ret, VAULT_WAITING, req->fd);
	return err;
}

static int add_use(struct buffers *b, struct buffer *buf, const struct buffer_request *req)
{
	struct vault_record r = {
		.kind = VAULT_USE,
		.use = { .buffer = buf->id, .client = req->owner, .seq = req->seq },
	};
	struct use *use = calloc(1, sizeof(*use));

	if (!use)
		return -ENOMEM;
	if (!req->answer)
		vault_put(b->vault, &r, -1);
	*use = (struct use){
		.next = buf->uses,
		.client = req->client,
		.seq = req->seq,
		.id = r.id,
		.answer = req->answer,
		.answer_arg = req->answer_arg,
	};
	buf->uses = use;
	return 0;
}

int buffers_add(struct buffers *b, const struct buffer_request *req, enum wire_reason *ret_reason)
{
	struct buffer *buf;
	struct stat st;
	bool fresh;
	int ret;

	*ret_reason = WIRE_NO_MEMORY;
	if (fstat(req->fd, &st) < 0)
		return -errno;
	buf = find(b, &st, req);
	fresh = !buf;
	if (fresh) {
		ret = add_buffer(b, &st, req, &buf, ret_reason);
		if (ret)
			return ret;
	}
	ret = add_use(b, buf, req);
	if (!ret && fresh) {
		ret = start_register(b, buf);
		*ret_reason = ret == -EOPNOTSUPP ? WIRE_NO_FEATURE : WIRE_KERNEL_REFUSED;
	}
	if (ret && fresh)
		free_buffer(b, buf);
	if (ret)
		return ret;
	if (buf->state == LIVE)
		buffers_answer_uses(b, buf, 0, WIRE_OK);
	*ret_reason = WIRE_OK;
	return 0;
}

static void uses_ended(struct buffers *b, struct buffer *buf)
{
	if (!buf->uses && buf->state == LIVE)
		start_unregister(b, buf);
}

int buffers_remove(struct buffers *b, void *client, unsigned int index)
{
	for (struct buffer *buf = b->first; buf; buf = buf->next) {
		if (buf->state != LIVE || buf->index != index)
			continue;
		for (struct use **link = &buf->uses; *link; link = &(*link)->next) {
			struct use *use = *link;

			if (use->client != client)
				continue;
			*link = use->next;
			free_use(b, use);
			uses_ended(b, buf);
			return 0;
		}
	}
	return -ENOENT;
}

bool buffers_next(const struct buffers *b, const struct buffer_request *req,
		  struct buffer_range *ret)
{
	const struct buffer *first = NULL;

	for (const struct buffer *buf = b->first; buf; buf = buf->next) {
		if (buf->dev != req->dev || buf->ino != req->ino ||
		    buf->offset >= req->offset + req->len ||
		    buf->offset + buf->view.len <= req->offset)
			continue;
		if (!first || buf->offset < first->offset)
			first = buf;
	}
	if (!first)
		return false;
	*ret = (struct buffer_range){ first->offset, first->view.len, first->view.read_only };
	return true;
}

int buffers_keep(struct buffers *b, const struct buffer_request *req)
{
	struct stat st = { .st_dev = req->dev, .st_ino = req->ino };
	struct buffer *buf = find(b, &st, req);

	for (struct use *use = buf ? buf->uses : NULL; use; use = use->next) {
		if (use->client != req->client)
			continue;
		if (use->seq == req->seq)
			return -EALREADY;
		use->seq = req->seq;
		return 0;
	}
	return -ENOENT;
}

/* End the uses of @buf by @client, but for those with @seq (NULL: all). */
static unsigned int end_uses(struct buffers *b, struct buffer *buf, void *client,
			     const uint32_t *seq)
{
	struct use **link = &buf->uses;
	unsigned int unanswered = 0;

	while (*link) {
		struct use *use = *link;

		if (use->client != client || (seq && use->seq == *seq)) {
			link = &use->next;
			continue;
		}
		*link = use->next;
		unanswered += !use->answered;
		free_use(b, use);
	}
	uses_ended(b, buf);
	return unanswered;
}

static unsigned int end_all_uses(struct buffers *b, void *client, const uint32_t *seq)
{
	unsigned int unanswered = 0;
	struct buffer *next;

	for (struct buffer *buf = b->first; buf; buf = next) {
		next = buf->next;
		unanswered += end_uses(b, buf, client, seq);
	}
	return unanswered;
}

unsigned int buffers_sweep(struct buffers *b, void *client, uint32_t seq)
{
	return end_all_uses(b, client, &seq);
}

void buffers_forget_client(struct buffers *b, void *client)
{
	end_all_uses(b, client, NULL);
}

void buffers_close(struct buffers *b)
{
	b->first_waiting = b->last_waiting = NULL;
	while (b->first) {
		struct buffer *buf = b->first;

		if (buf->state != REGISTERING)
			registry_withdraw(b->registry, buf->index);
		free_buffer(b, buf);
	}
}
