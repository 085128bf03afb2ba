/* SPDX-License-Identifier: MIT */
/* buffers.c - files and who wants what of them; see buffers.h. */
#include "buffers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/closer.h"
#include "server/life/worker.h"
#include "buffers_internal.h"
#include "resident.h"

/* Between looks at a file whose owner asks for them: ms. */
#define HINT_MS 50

long long buffers_now(const struct buffers *b)
{
	struct timespec ts;

	if (b->clock)
		return b->clock();
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* ---- files ---- */

static struct file *find_file(struct buffers *b, dev_t dev, ino_t ino)
{
	struct file *file = b->first;

	while (file && (file->dev != dev || file->ino != ino))
		file = file->next;
	return file;
}

/*
 * The same file, opened once more: looking for data moves the position, which the
 * client's own descriptor shares.  For writing if that can be had, even if it is only to be
 * read: only then can a mapping be guarded.
 */
static int open_again(int fd)
{
	char path[32];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	if (again < 0)
		again = open(path, O_RDONLY | O_CLOEXEC);
	if (again < 0)
		again = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return again < 0 ? -errno : again;
}

static void note_file(struct buffers *b, struct file *file)
{
	struct vault_record r = {
		.id = file->id,
		.kind = VAULT_FILE,
		.file = { .suspect = file->suspect },
	};

	vault_put(b->vault, &r, file->id ? -1 : file->fd);
	file->id = r.id;
}

struct file *buffers_new_file(struct buffers *b, int fd, dev_t dev, ino_t ino)
{
	struct file *file = calloc(1, sizeof(*file));

	if (!file)
		return NULL;
	*file = (struct file){ .next = b->first, .dev = dev, .ino = ino };
	file->fd = fd < 0 ? -1 : open_again(fd);
	if (fd >= 0 && file->fd < 0) {
		free(file);
		return NULL;
	}
	file->huge_page = resident_huge_page(file->fd);
	b->first = file;
	b->nr_files++;
	return file;
}

struct give_back {
	struct worker_job work; /* first */
	void *base;
	size_t len;
	int fd;
};

static void give_back(void *base, size_t len, int fd)
{
	if (base)
		munmap(base, len);
	if (fd >= 0)
		close(fd);
}

static void run_give_back(struct worker_job *work)
{
	struct give_back *g = (struct give_back *)work;

	give_back(g->base, g->len, g->fd);
}

/* Ours may be the last of it, and to free much memory takes long. */
void buffers_give_back(uid_t user, void *base, size_t len, int fd)
{
	struct stat st;
	bool little = len <= CLOSER_LITTLE &&
		      (fd < 0 || (fstat(fd, &st) == 0 && st.st_blocks * 512 <= CLOSER_LITTLE));
	struct give_back *g = little ? NULL : malloc(sizeof(*g));

	if (g) {
		*g = (struct give_back){ { .run = run_give_back }, base, len, fd };
		if (worker_start(user, WORKER_CLOSE, &g->work) == 0)
			return;
	}
	free(g);
	give_back(base, len, fd);
}

void buffers_suspect(struct buffers *b, struct file *file)
{
	log_line(LOG_WARN, "a server died while memory of a client was registered: that client's "
			   "is copied from now on");
	file->suspect = true;
	note_file(b, file);
}

void buffers_put_file(struct buffers *b, struct file *file)
{
	struct file **link = &b->first;

	if (file->held || file->uses || file->slices)
		return;
	while (*link != file)
		link = &(*link)->next;
	*link = file->next;
	b->nr_files--;
	account_give_file(file->account);
	buffers_give_back(file->user, NULL, 0, file->fd);
	vault_drop(b->vault, file->id);
	free(file);
}

bool file_wants_writable(const struct file *file)
{
	for (const struct use *use = file->uses; use; use = use->next)
		if (!use->read_only)
			return true;
	return false;
}

bool file_wants_all(const struct file *file, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;
	bool grew = true;

	/* Uses are few, and hardly ever more than one is needed. */
	while (grew && offset < end) {
		grew = false;
		for (const struct use *use = file->uses; use; use = use->next)
			if (use->offset <= offset && use->offset + use->len > offset) {
				offset = use->offset + use->len;
				grew = true;
			}
	}
	return offset >= end;
}

/* ---- uses ---- */

struct use *buffers_new_use(struct buffers *b, struct file *file, const struct use *like)
{
	struct use *use = malloc(sizeof(*use));

	if (!use)
		return NULL;
	*use = *like;
	use->next = file->uses;
	file->uses = use;
	registry_asked(b->registry);
	return use;
}

static void answered(struct buffers *b, struct use *use)
{
	if (!use->answered)
		registry_answered(b->registry);
	use->answered = true;
}

static int add_use(struct buffers *b, struct file *file, const struct buffer_request *req)
{
	struct use *use = buffers_new_use(b, file, &(struct use){
							.client = req->client,
							.account = req->account,
							.offset = req->offset,
							.len = req->len,
							.read_only = req->read_only,
							.seq = req->seq,
							.number = b->next_number,
							.answer = req->answer,
							.answer_arg = req->answer_arg,
						});
	struct vault_record r = {
		.kind = VAULT_USE,
		.use = { .file = file->id,
			 .client = req->owner,
			 .offset = req->offset,
			 .len = req->len,
			 .seq = req->seq,
			 .number = b->next_number,
			 .read_only = req->read_only },
	};

	if (!use)
		return -ENOMEM;
	/* The older protocol has them as int. */
	b->next_number = (b->next_number + 1) & INT32_MAX;
	if (!req->answer)
		vault_put(b->vault, &r, -1);
	use->id = r.id;
	return 0;
}

static void free_use(struct buffers *b, struct file *file, struct use *use)
{
	struct use **link = &file->uses;

	while (*link != use)
		link = &(*link)->next;
	*link = use->next;
	answered(b, use);
	vault_drop(b->vault, use->id);
	free(use);
}

static bool overlaps(const struct slice *s, const struct use *use)
{
	return s->offset < use->offset + use->len && slice_end(s) > use->offset;
}

static bool is_pending(const struct file *file, const struct use *use)
{
	for (const struct slice *s = file->slices; s; s = s->next)
		if ((s->state == WAITING || s->state == REGISTERING) && overlaps(s, use))
			return true;
	return false;
}

static bool has_live(const struct file *file, const struct use *use)
{
	for (const struct slice *s = file->slices; s; s = s->next)
		if (s->state == LIVE && overlaps(s, use))
			return true;
	return false;
}

/* Of a use that is not pending: 0 if something of it is registered, or nothing had to be. */
static int judge_use(const struct file *file, const struct use *use, enum wire_reason *ret_reason)
{
	*ret_reason = WIRE_OK;
	if (has_live(file, use))
		return 0;
	/* EFAULT: what was there a moment ago is not any more. */
	if (file->refused && file->refused != -EFAULT) {
		*ret_reason = file->why;
		return file->refused;
	}
	if (file->over_budget) {
		*ret_reason = WIRE_OVER_BUDGET;
		return -EDQUOT;
	}
	return 0;
}

static struct use *next_to_answer(const struct file *file)
{
	struct use *use = file->uses;

	while (use && (use->answered || use->looked != LOOKED || is_pending(file, use)))
		use = use->next;
	return use;
}

/*
 * No use of @file by @gone may be left: what it paid for is paid by somebody else who
 * wants it, or by its user until it is gone.  @gone may be freed after that, whereas the
 * file is here until the driver has given its memory back.
 */
static void pass_on_charges(struct file *file, const struct account *gone)
{
	struct account *heir = NULL;

	for (const struct use *use = file->uses; use; use = use->next) {
		if (use->account == gone)
			return;
		if (use->account && !heir)
			heir = use->account;
	}
	for (struct slice *s = file->slices; s; s = s->next)
		if (s->account == gone)
			slice_set_account(s, heir ? heir : gone->parent);
	/* An attachment's: one with a user never pays for files itself. */
	if (file->account == gone) {
		account_give_file(file->account);
		file->account = account_top(heir);
		account_inherit_file(file->account);
	}
}

void buffers_settle(struct buffers *b, struct file *file)
{
	struct use *use;

	while ((use = next_to_answer(file))) {
		struct use was = *use;
		enum wire_reason reason;
		int status = judge_use(file, use, &reason);

		answered(b, use);
		if (status) {
			free_use(b, file, use);
			if (was.account)
				pass_on_charges(file, was.account);
		}
		(was.answer ? was.answer : b->answer)(was.answer ? was.answer_arg : b->answer_arg,
						      was.client, was.seq, status, reason,
						      was.number);
	}
}

static struct file *bring_file(struct buffers *b, const struct buffer_request *req,
			       const struct stat *st, enum wire_reason *ret_reason)
{
	struct file *file;

	*ret_reason = WIRE_OVER_BUDGET; /* nothing of it can be there already */
	if (b->bytes >= b->max_bytes || !account_room(req->account) ||
	    b->nr_files >= BUFFERS_FILES_MAX || !account_take_file(req->account))
		return NULL;
	*ret_reason = WIRE_NO_MEMORY;
	file = buffers_new_file(b, req->fd, st->st_dev, st->st_ino);
	if (!file) {
		account_give_file(req->account);
		return NULL;
	}
	file->account = account_top(req->account);
	file->user = req->account ? req->account->user : 0;
	note_file(b, file);
	return file;
}

int buffers_add(struct buffers *b, const struct buffer_request *req, enum wire_reason *ret_reason)
{
	struct file *file;
	struct stat st;
	int ret;

	*ret_reason = WIRE_NO_FEATURE;
	if (b->no_feature)
		return -EOPNOTSUPP;
	*ret_reason = WIRE_NO_MEMORY;
	if (fstat(req->fd, &st) < 0)
		return -errno;
	file = find_file(b, st.st_dev, st.st_ino);
	if (!file) {
		file = bring_file(b, req, &st, ret_reason);
		if (!file)
			return *ret_reason == WIRE_OVER_BUDGET ? -EDQUOT : -ENOMEM;
	}
	file->held++;
	ret = add_use(b, file, req);
	if (!ret) {
		*ret_reason = WIRE_OK;
		buffers_look(b, file);
	}
	file->held--;
	buffers_put_file(b, file);
	return ret;
}

/* ---- the end of uses ---- */

static void uses_ended(struct buffers *b, struct file *file, const struct account *account)
{
	if (account)
		pass_on_charges(file, account);
	file->stale = true;
	buffers_review(b, file);
	buffers_ask(b);
}

int buffers_remove(struct buffers *b, void *client, uint32_t number)
{
	for (struct file *file = b->first; file; file = file->next)
		for (struct use *use = file->uses; use; use = use->next) {
			const struct account *account = use->account;

			if (use->client != client || use->number != number)
				continue;
			file->held++;
			free_use(b, file, use);
			uses_ended(b, file, account);
			file->held--;
			buffers_put_file(b, file);
			return 0;
		}
	return -ENOENT;
}

int buffers_keep(struct buffers *b, const struct buffer_request *req)
{
	struct file *file = find_file(b, req->dev, req->ino);

	for (struct use *use = file ? file->uses : NULL; use; use = use->next) {
		if (use->client != req->client || use->offset != req->offset ||
		    use->len != req->len || use->read_only != req->read_only)
			continue;
		if (use->seq == req->seq)
			return -EALREADY;
		use->seq = req->seq;
		return 0;
	}
	return -ENOENT;
}

/* End the uses of @file by @client, but for those with @seq (NULL: all). */
static unsigned int end_uses(struct buffers *b, struct file *file, void *client,
			     const uint32_t *seq)
{
	const struct account *account = NULL;
	unsigned int unanswered = 0;
	bool any = false;
	struct use *next;

	for (struct use *use = file->uses; use; use = next) {
		next = use->next;
		if (use->client != client || (seq && use->seq == *seq))
			continue;
		unanswered += !use->answered;
		account = use->account;
		any = true;
		free_use(b, file, use);
	}
	if (any)
		uses_ended(b, file, account);
	return unanswered;
}

static unsigned int end_all_uses(struct buffers *b, void *client, const uint32_t *seq)
{
	unsigned int unanswered = 0;
	struct file *next;

	for (struct file *file = b->first; file; file = next) {
		file->held++;
		unanswered += end_uses(b, file, client, seq);
		next = file->next;
		file->held--;
		buffers_put_file(b, file);
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

/* ---- all together ---- */

static uint64_t live_bytes_of(const struct file *file, const void *client)
{
	uint64_t bytes = 0;

	for (const struct slice *s = file->slices; s; s = s->next) {
		bool wanted = false;

		for (const struct use *use = file->uses; use && !wanted; use = use->next)
			wanted = use->client == client && overlaps(s, use);
		if (wanted && s->state == LIVE)
			bytes += s->view.len;
	}
	return bytes;
}

uint64_t buffers_live_bytes(const struct buffers *b, const void *client)
{
	uint64_t bytes = 0;

	for (const struct file *file = b->first; file; file = file->next)
		bytes += live_bytes_of(file, client);
	return bytes;
}

void buffers_forget_accounts(struct buffers *b)
{
	for (struct file *file = b->first; file; file = file->next) {
		account_give_file(file->account);
		file->account = NULL;
		for (struct slice *s = file->slices; s; s = s->next)
			slice_set_account(s, NULL);
	}
}

/* However often one is told so. */
static void look_soon(struct file *file)
{
	long long soon = file->looked_at + HINT_MS;

	file->due = true;
	if (file->next_look > soon)
		file->next_look = soon;
}

int buffers_look_again(struct buffers *b, void *client, uint32_t number)
{
	for (struct file *file = b->first; file; file = file->next)
		for (const struct use *use = file->uses; use; use = use->next)
			if (use->client == client && use->number == number) {
				look_soon(file);
				return 0;
			}
	return -ENOENT;
}

/* A slice that a rescue has taken from the queues: its memory is not the client's any more. */
static bool is_rescued(const struct buffers *b, const struct slice *s)
{
	struct buffer_view view;

	return s->state == LIVE && s->view.base && !registry_view(b->registry, s->index, &view);
}

void buffers_rescued(struct buffers *b)
{
	for (struct file *file = b->first; file; file = file->next)
		for (struct slice *s = file->slices; s; s = s->next) {
			if (!is_rescued(b, s))
				continue;
			slice_retire(b, s);
			look_soon(file);
		}
	buffers_ask(b);
}

static void close_file(struct buffers *b, struct file *file)
{
	buffers_cancel_look(file);
	while (file->uses)
		free_use(b, file, file->uses);
	while (file->slices) {
		struct slice *s = file->slices;

		if (s->view.base && s->state != WAITING && s->state != REGISTERING)
			registry_withdraw(b->registry, s->index);
		slice_free(b, s);
	}
	buffers_put_file(b, file);
}

void buffers_close(struct buffers *b)
{
	b->to_register = b->to_unregister = b->leaving = (struct slice_queue){ 0 };
	while (b->first)
		close_file(b, b->first);
}
