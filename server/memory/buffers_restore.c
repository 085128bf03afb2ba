/* SPDX-License-Identifier: MIT */
/*
 * buffers_restore.c - take over from a server that died.
 *
 * Who wants what is known from the records; what is registered too, but for what was under
 * way.  The driver still has it and still matches requests with it, so before the first request
 * comes each slice is published under its index, also what was being unregistered: the driver may
 * have done that, but nothing else can have that index.
 *
 * When the device has resumed the driver is asked what it has; where it cannot say, what it may
 * have is tried: it gives the lowest free index, and only one registration can have been under way.
 * What nobody knows of (all of it, without a keeper) is unregistered, and its requests are copied
 * until then.  What is known and not there is registered anew.  Then all goes on as after any other
 * change, but for one thing: a file in whose registration a server died is not registered any more.
 * That might have killed it, and would kill each successor; so it is copied.
 */
#include <errno.h>
#include <sys/stat.h>

#include "buffers_internal.h"
#include "common/log.h"

#define MISSES_MAX 256U /* indices in a row that are not used: there are no more */

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
	if (r->buffer.state == VAULT_REGISTERING) {
		buffers_suspect(b, file);
		b->unfinished = r->id;
		return 0;
	}
	ret = slice_restore(b, file, r, &s);
	if (ret)
		return ret;
	s->held_until = buffers_now(b) + HELD_MS;
	s->doubtful = r->buffer.state == VAULT_UNREGISTERING;
	s->state = s->view.base && !s->doubtful ? LIVE : RETIRING;
	if (s->state == RETIRING)
		slice_queue_append(&b->to_unregister, s);
	return slice_publish(b, s, r->buffer.index);
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

/* Whoever wants it pays, whatever the budget is now. */
static void charge(const struct file *file, struct slice *s)
{
	for (const struct use *use = file->uses; use && !s->account; use = use->next)
		if (use->account)
			slice_set_account(s, use->account);
}

static void charge_all(struct buffers *b)
{
	for (struct file *file = b->first; file; file = file->next)
		for (struct slice *s = file->slices; s; s = s->next)
			charge(file, s);
}

/* ---- what the driver has ---- */

struct indices {
	uint8_t bits[BUFFERS_ALL_INDICES / 8];
};

static bool has_index(const struct indices *set, unsigned int index)
{
	return set->bits[index / 8] & (1U << (index % 8));
}

static void flip_index(struct indices *set, unsigned int index)
{
	set->bits[index / 8] ^= (uint8_t)(1U << (index % 8));
}

/* Those that a slice of ours has. */
static void note_known(const struct buffers *b, struct indices *ret)
{
	*ret = (struct indices){ 0 };
	for (const struct file *file = b->first; file; file = file->next)
		for (const struct slice *s = file->slices; s; s = s->next)
			if (s->state >= LIVE && s->index < BUFFERS_ALL_INDICES &&
			    !has_index(ret, s->index))
				flip_index(ret, s->index);
}

/* All that nobody knows of is of one file, which nobody wants. */
static struct file *nobodys_file(struct buffers *b)
{
	struct file *file = b->first;

	while (file && (file->fd >= 0 || file->id))
		file = file->next;
	if (!file)
		file = buffers_new_file(b, -1, 0, 0);
	if (file)
		file->suspect = true;
	return file;
}

static int add_unknown(struct buffers *b, unsigned int index)
{
	struct file *file = nobodys_file(b);
	int ret = file ? slice_unknown(b, file, index) : -ENOMEM;

	if (ret)
		return log_error(ret, "buffer %u of a dead server stays registered", index);
	b->unknown++;
	return 0;
}

/* What the records tell of and the driver has not: as if it had been unregistered. */
static void forget_missing(struct buffers *b, const struct indices *missing)
{
	for (struct file *file = b->first; file; file = file->next)
		for (struct slice *next, *s = file->slices; s; s = next) {
			next = s->next;
			if (s->state != LIVE || !has_index(missing, s->index))
				continue;
			s->doubtful = true;
			slice_retire(b, s);
		}
}

/* The driver's list, against ours. */
static int compare(struct buffers *b)
{
	struct uapi_shmem_buf_info infos[256];
	struct indices known;
	unsigned int next = 0;
	int nr = 0;

	note_known(b, &known);
	while (next < BUFFERS_ALL_INDICES &&
	       (nr = b->backend.list(b->backend.arg, next, infos, 256)) > 0) {
		for (int i = 0; i < nr; i++) {
			if (infos[i].index < next || infos[i].index >= BUFFERS_ALL_INDICES)
				return -EPROTO;
			if (has_index(&known, infos[i].index))
				flip_index(&known, infos[i].index);
			else
				add_unknown(b, infos[i].index);
			next = infos[i].index + 1;
		}
	}
	if (nr >= 0)
		forget_missing(b, &known);
	return nr;
}

/*
 * One after the other: the driver gives the lowest free index to each registration, so where it is
 * not known how many there were, a long row of unused ones is the end.
 */
void buffers_search(struct buffers *b)
{
	struct indices known;

	if (b->to_unregister.first || b->search.next >= b->search.end)
		return;
	note_known(b, &known);
	while (b->search.next < b->search.end && has_index(&known, b->search.next))
		b->search.next++;
	if (b->search.next < b->search.end && add_unknown(b, b->search.next++))
		b->search.end = 0;
}

static void all_is_known(struct buffers *b)
{
	vault_drop(b->vault, b->unfinished);
	b->unfinished = 0;
	if (b->nr_unknown_gone)
		log_line(LOG_WARN,
			 "%u buffers of the dead server are unregistered, which no record tells "
			 "of: clients that no record tells of either are copied until they open "
			 "their files again",
			 b->nr_unknown_gone);
	b->nr_unknown_gone = 0;
}

void buffers_unknown_gone(struct buffers *b, int res)
{
	b->unknown--;
	b->nr_unknown_gone += res >= 0;
	b->search.misses = res == -ENOENT ? b->search.misses + 1 : 0;
	if (b->search.end == BUFFERS_ALL_INDICES && b->search.misses >= MISSES_MAX)
		b->search.end = 0;
	if (buffers_all_known(b))
		all_is_known(b);
}

bool buffers_all_known(const struct buffers *b)
{
	return !b->unknown && b->search.next >= b->search.end;
}

/* One more than the index that a registration would get, or has got. */
static unsigned int behind_lowest_free(const struct buffers *b)
{
	struct indices known;
	unsigned int index = 0;

	note_known(b, &known);
	while (index < UAPI_SHMEM_BUF_INDEX_MAX && has_index(&known, index))
		index++;
	return index + 1;
}

static void find_unknown(struct buffers *b, unsigned int indices)
{
	int ret = b->backend.list ? compare(b) : -EOPNOTSUPP;

	if (ret < 0 && ret != -EOPNOTSUPP)
		log_error(ret, "list the driver's buffers");
	if (ret < 0 && !indices && b->unfinished)
		indices = behind_lowest_free(b);
	if (ret < 0)
		b->search.end = indices;
	if (buffers_all_known(b))
		all_is_known(b);
}

void buffers_resume(struct buffers *b, unsigned int indices)
{
	struct file *next;

	charge_all(b);
	find_unknown(b, indices);
	b->paused = false;
	buffers_ask(b);
	/* The predecessor may have died before it answered; twice does no harm. */
	for (struct file *file = b->first; file; file = next) {
		next = file->next;
		buffers_look(b, file);
	}
}
