/* SPDX-License-Identifier: MIT */
/*
 * buffers_restore.c - take over from a server that died.
 *
 * Who wants what is known from the records; what is registered too, but for what was under
 * way.  The driver still has it and still matches requests with it, so each slice is
 * published under its index before the first request comes:
 *
 *   LIVE           is what it was;
 *   REGISTERING    the driver may have done it.  It gives the lowest free index
 *                  and nothing else was under way, so if it has, we know which;
 *   UNREGISTERING  and here it may have done that.
 *
 * In both cases nothing else can have that index, so it is published to be safe, and
 * unregistered (if it is not there, the driver says so).  Then all goes on as after any other
 * change, but for one thing: a file in whose registration a server died is not registered any
 * more.  That might have killed it, and would kill each successor; so it is copied.
 */
#include <errno.h>
#include <sys/stat.h>

#include "buffers_internal.h"
#include "common/log.h"

#define NO_INDEX UINT32_MAX

/* Uses that are not in the records are asked for again within this time: ms. */
#define HELD_MS 10000

static struct file *find_id(struct buffers *b, uint64_t id)
{
	struct file *file = b->first;

	while (file && file->id != id)
		file = file->next;
	return file;
}

static int restore_file(struct buffers *b, const struct vault_record *r, int fd)
{
	struct stat st = { 0 };
	bool lost = fd < 0 || fstat(fd, &st) < 0;
	/* Without memory its slices are only there to be unregistered. */
	struct file *file = buffers_new_file(b, lost ? -1 : fd, st.st_dev, st.st_ino);

	if (!file)
		return -ENOMEM;
	file->id = r->id;
	file->suspect = lost || r->file.suspect;
	return lost ? -EBADF : 0;
}

static int restore_slice(struct buffers *b, const struct vault_record *r)
{
	struct file *file = find_id(b, r->buffer.file);
	struct slice *s;
	int ret;

	if (!file)
		return -ENOENT;
	ret = slice_restore(b, file, r, &s);
	if (ret)
		return ret;
	s->held_until = buffers_now(b) + HELD_MS;
	switch (r->buffer.state) {
	case VAULT_LIVE:
		s->state = s->view.base ? LIVE : RETIRING;
		return slice_publish(b, s, r->buffer.index);
	case VAULT_REGISTERING:
		buffers_suspect(b, file);
		s->index = NO_INDEX; /* it follows in buffers_restored() */
		break;
	default:
		ret = slice_publish(b, s, r->buffer.index);
		break;
	}
	s->state = RETIRING;
	s->doubtful = true;
	return ret;
}

int buffers_restore(struct buffers *b, const struct vault_record *r, int fd)
{
	return r->kind == VAULT_FILE ? restore_file(b, r, fd) : restore_slice(b, r);
}

int buffers_restore_use(struct buffers *b, const struct vault_record *r, void *client,
			struct account *account)
{
	struct file *file = find_id(b, r->use.file);
	struct use like = {
		.client = client,
		.account = account,
		.offset = r->use.offset,
		.len = r->use.len,
		.read_only = r->use.read_only,
		.seq = r->use.seq,
		.number = r->use.number,
		.id = r->id,
	};

	/* The predecessor died between the two records of a use's end. */
	if (!file)
		return -ENOENT;
	if (r->use.number >= b->next_number)
		b->next_number = (r->use.number + 1) & INT32_MAX;
	return buffers_new_use(b, file, &like) ? 0 : -ENOMEM;
}

/* Also by what is not published, because it could not be mapped. */
static bool is_taken(const struct buffers *b, unsigned int index)
{
	struct buffer_view view;

	if (registry_view(b->registry, index, &view))
		return true;
	for (const struct file *file = b->first; file; file = file->next)
		for (const struct slice *s = file->slices; s; s = s->next)
			if (!s->view.base && s->index == index)
				return true;
	return false;
}

static unsigned int lowest_free_index(const struct buffers *b)
{
	unsigned int index = 0;

	while (is_taken(b, index))
		index++;
	return index;
}

/* Whoever wants it pays, whatever the budget is now. */
static void charge(const struct file *file, struct slice *s)
{
	for (const struct use *use = file->uses; use && !s->account; use = use->next)
		if (use->account)
			slice_set_account(s, use->account);
}

static int restored(struct buffers *b, struct file *file)
{
	for (struct slice *s = file->slices; s; s = s->next) {
		int ret = 0;

		charge(file, s);
		if (s->state != RETIRING)
			continue;
		if (s->index == NO_INDEX)
			ret = slice_publish(b, s, lowest_free_index(b));
		if (ret)
			return ret;
		slice_queue_append(&b->to_unregister, s);
	}
	return 0;
}

int buffers_restored(struct buffers *b)
{
	int ret = 0;

	for (struct file *file = b->first; file && !ret; file = file->next)
		ret = restored(b, file);
	return ret;
}

void buffers_resume(struct buffers *b)
{
	struct file *next;

	b->paused = false;
	buffers_ask(b);
	/* The predecessor may have died before it answered; twice does no harm. */
	for (struct file *file = b->first; file; file = next) {
		next = file->next;
		buffers_look(b, file);
	}
}
