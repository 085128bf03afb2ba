/* SPDX-License-Identifier: MIT */
/*
 * slices.c - from a slice to what the driver has.
 *
 * Invariant: a slice is published exactly while the kernel may name its
 * index, so a queue thread never finds an index without its memory.  The kernel
 * may give an index to the next buffer before we have read that the last one
 * is unregistered; so nothing is registered while an unregistration is under
 * way, or a queue thread could take the old slice's memory for the new one's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/log.h"
#include "server/life/fault.h"
#include "buffers_internal.h"
#include "guard.h"

/* More at once make some drivers read the wrong command. */
#define UNREGISTERING_MAX 16

#define ORDINARY_SLICE (2ULL << 20) /* bytes */

/* ---- making and freeing ---- */

/* Nobody can give back pages of such a file, so no pin will ever allocate one. */
static bool cannot_be_punched(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

/*
 * For rings, which pin nothing else, what is only to be read is mapped for writing all the same
 * when that can be had.  That nobody writes there is up to registry_find().
 */
static int map(const struct buffers *b, const struct file *file, struct slice *s)
{
	bool writable = !s->view.read_only || b->backend.recall;
	int guard = 0;
	/* Whom a missing page would end by a signal needs one that is made. */
	int *guarded = b->touched ? NULL : &guard;
	void *at;
	int ret = guard_map(file->fd, s->offset, s->view.len,
			    writable ? PROT_READ | PROT_WRITE : PROT_READ, &at, guarded);

	if (ret && writable && s->view.read_only) {
		writable = false;
		ret = guard_map(file->fd, s->offset, s->view.len, PROT_READ, &at, guarded);
	}
	if (ret)
		return ret;
	if (guard && !cannot_be_punched(file->fd)) {
		munmap(at, s->view.len);
		return guard;
	}
	s->view.base = at;
	s->view.pinnable = writable && b->backend.recall && guard_works();
	return 0;
}

static void link_slice(struct buffers *b, struct slice *s)
{
	struct slice **link = &s->file->slices;

	while (*link && (*link)->offset < s->offset)
		link = &(*link)->next;
	s->next = *link;
	*link = s;
	b->nr++;
	b->bytes += s->view.len;
}

int slice_new(struct buffers *b, struct file *file, uint64_t offset, uint64_t len, bool read_only,
	      struct slice **ret)
{
	struct slice *s = malloc(sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	*s = (struct slice){
		.file = file,
		.offset = offset,
		.view = { .len = len, .read_only = read_only },
	};
	err = map(b, file, s);
	if (err) {
		free(s);
		return err;
	}
	link_slice(b, s);
	*ret = s;
	return 0;
}

int slice_restore(struct buffers *b, struct file *file, const struct vault_record *r,
		  struct slice **ret)
{
	struct slice *s = malloc(sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	*s = (struct slice){
		.file = file,
		.offset = r->buffer.offset,
		.id = r->id,
		.view = { .len = r->buffer.len, .read_only = r->buffer.read_only },
	};
	err = map(b, file, s);
	if (err)
		log_error(err, "map registered memory of %llu bytes again: it is copied",
			  (unsigned long long)s->view.len);
	link_slice(b, s);
	*ret = s;
	return 0;
}

int slice_unknown(struct buffers *b, struct file *file, unsigned int index)
{
	struct slice *s = malloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	*s = (struct slice){
		.file = file,
		.index = index,
		.state = RETIRING,
		.doubtful = true,
		.unknown = true,
	};
	link_slice(b, s);
	slice_queue_append(&b->to_unregister, s);
	return 0;
}

void slice_set_account(struct slice *s, struct account *account)
{
	if (account)
		account_charge(account, s->view.len);
	if (s->account)
		account_refund(s->account, s->view.len);
	s->account = account;
}

void slice_free(struct buffers *b, struct slice *s)
{
	struct slice **link = &s->file->slices;

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	slice_set_account(s, NULL);
	b->nr--;
	b->bytes -= s->view.len;
	registry_wait(b->registry);
	if (s->view.base)
		buffers_give_back(s->file->user, s->view.base, s->view.len, -1);
	vault_drop(b->vault, s->id);
	free(s);
}

/* For the successor: what is about to happen, or has happened, to @s. */
void slice_note(struct buffers *b, struct slice *s, enum vault_buffer_state state)
{
	struct vault_record r = {
		.id = s->id,
		.kind = VAULT_BUFFER,
		.buffer = { .file = s->file->id,
			    .offset = s->offset,
			    .len = s->view.len,
			    .index = s->index,
			    .state = (uint8_t)state,
			    .read_only = s->view.read_only },
	};

	if (s->unknown)
		return; /* who comes after us finds it as we did */
	vault_put(b->vault, &r, -1);
	s->id = r.id;
}

int slice_publish(struct buffers *b, struct slice *s, unsigned int index)
{
	s->index = index;
	if (index >= b->indices)
		b->indices = index + 1;
	return s->view.base ? registry_publish(b->registry, index, &s->view) : 0;
}

/* ---- queues ---- */

void slice_queue_append(struct slice_queue *q, struct slice *s)
{
	if (!q->first)
		q->last = &q->first;
	s->next_queued = NULL;
	*q->last = s;
	q->last = &s->next_queued;
}

struct slice *slice_queue_take(struct slice_queue *q)
{
	struct slice *s = q->first;

	q->first = s->next_queued;
	return s;
}

static void dequeue(struct slice_queue *q, const struct slice *s)
{
	struct slice **link = &q->first;

	while (*link != s)
		link = &(*link)->next_queued;
	*link = s->next_queued;
	if (!*link)
		q->last = link;
}

/* ---- asking the driver ---- */

/* False: it could not even be asked; again with the next tick. */
static bool ask_unregister(struct buffers *b, struct slice *s)
{
	s->state = UNREGISTERING;
	slice_note(b, s, VAULT_UNREGISTERING);
	FAULT_POINT("unregistering");
	b->unregistering++;
	if (b->backend.unreg(b->backend.arg, s->index, s) == 0)
		return true;
	b->unregistering--;
	s->state = RETIRING;
	slice_queue_append(&b->to_unregister, s);
	return false;
}

static void ask_register(struct buffers *b, struct slice *s)
{
	int ret;

	s->state = REGISTERING;
	s->reg = (struct uapi_shmem_buf_reg){
		.addr = (uintptr_t)s->view.base,
		.len = s->view.len,
		.flags = s->view.read_only ? UAPI_SHMEM_BUF_READ_ONLY : 0,
	};
	slice_note(b, s, VAULT_REGISTERING);
	FAULT_POINT("registering");
	b->registering++;
	b->asked_at = buffers_now(b);
	ret = b->backend.reg(b->backend.arg, &s->reg, s);
	FAULT_POINT("asked");
	if (ret)
		buffers_finished(b, s, ret);
}

void buffers_ask(struct buffers *b)
{
	unsigned int most = b->one_at_a_time ? 1 : UNREGISTERING_MAX;
	bool go_on = true;

	if (b->asking)
		return; /* our caller's caller goes on */
	b->asking = true;
	while (go_on && !b->paused && !b->registering) {
		buffers_search(b);
		if (b->to_unregister.first && b->unregistering < most)
			go_on = ask_unregister(b, slice_queue_take(&b->to_unregister));
		else if (b->to_register.first && !b->to_unregister.first && !b->unregistering)
			ask_register(b, slice_queue_take(&b->to_register));
		else
			go_on = false;
	}
	b->asking = false;
}

void buffers_pause(struct buffers *b, bool paused)
{
	b->paused = paused;
	buffers_ask(b);
}

bool buffers_idle(const struct buffers *b)
{
	return !b->registering && !b->unregistering;
}

void slice_register(struct buffers *b, struct slice *s)
{
	s->state = WAITING;
	slice_queue_append(&b->to_register, s);
}

void slice_retire(struct buffers *b, struct slice *s)
{
	switch (s->state) {
	case WAITING:
		dequeue(&b->to_register, s);
		slice_free(b, s);
		break;
	case REGISTERING:
		s->unwanted = true;
		break;
	case LIVE:
		s->state = RETIRING;
		slice_queue_append(&b->to_unregister, s);
		break;
	default:
		break;
	}
}

/* ---- answers ---- */

static struct slice *find_index(const struct buffers *b, unsigned int index)
{
	for (const struct file *file = b->first; file; file = file->next)
		for (struct slice *s = file->slices; s; s = s->next)
			if (s->index == index && s->state >= LIVE)
				return s;
	return NULL;
}

/* The driver has given @index to another; what we thought has it, has not. */
static void lose_index(struct buffers *b, unsigned int index)
{
	struct slice *s = find_index(b, index);

	if (!s)
		return;
	registry_withdraw(b->registry, index);
	if (s->state == LOST) {
		slice_leave(b, s); /* its file goes with the next tick */
		return;
	}
	log_line(LOG_ERROR, "the kernel named index %u twice", index);
	s->state = LOST;
	s->index = UINT32_MAX;
}

/* What a registration costs: that of much memory takes long for other reasons. */
static void learn(struct buffers *b, const struct slice *s)
{
	long long took = buffers_now(b) - b->asked_at;

	account_learn(s->account, took);
	if (s->view.len <= ORDINARY_SLICE)
		b->cost = account_cost(b->cost ? b->cost : PACE_COST_FIRST, took);
}

static void registered(struct buffers *b, struct slice *s, int res)
{
	b->registering--;
	learn(b, s);
	if (res < 0) {
		if (!s->unwanted) {
			s->file->refused = res;
			s->file->refusals++;
			s->file->why = res == -EOPNOTSUPP ? WIRE_NO_FEATURE : WIRE_KERNEL_REFUSED;
		}
		slice_free(b, s);
		return;
	}
	FAULT_POINT("registered");
	lose_index(b, (unsigned int)res);
	if (slice_publish(b, s, (unsigned int)res))
		log_line(LOG_ERROR, "index %u cannot be told to the queues", s->index);
	s->state = LIVE;
	s->file->refusals = 0;
	slice_note(b, s, VAULT_LIVE);
	FAULT_POINT("live");
	if (s->unwanted)
		slice_retire(b, s);
}

/*
 * It may still be in the driver: so it stays published and mapped, and its index is
 * never anything else's, unless the driver gives it to another.
 */
static void keep_lost(struct buffers *b, struct slice *s, int res)
{
	log_error(res, "unregister buffer %u of %llu bytes: it stays", s->index,
		  (unsigned long long)s->view.len);
	s->state = LOST;
	slice_note(b, s, VAULT_LIVE);
}

static void unregistered(struct buffers *b, struct slice *s, int res)
{
	b->unregistering--;
	FAULT_POINT("unregistered");
	if (res == -EINTR || res == -EAGAIN) {
		s->state = RETIRING;
		slice_queue_append(&b->to_unregister, s);
		return;
	}
	if (s->unknown)
		buffers_unknown_gone(b, res);
	if (res && res != -ENODEV && !(res == -ENOENT && s->doubtful)) {
		keep_lost(b, s, res);
		return;
	}
	if (s->view.base)
		registry_withdraw(b->registry, s->index);
	slice_leave(b, s);
}

void buffers_finished(struct buffers *b, void *cookie, int res)
{
	struct slice *s = cookie;
	struct file *file = s->file;

	file->held++;
	if (s->state == REGISTERING)
		registered(b, s, res);
	else
		unregistered(b, s, res);
	buffers_settle(b, file);
	buffers_ask(b);
	file->held--;
	buffers_put_file(b, file);
}
