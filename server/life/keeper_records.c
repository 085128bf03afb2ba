/* SPDX-License-Identifier: MIT */
/* keeper_records.c - what a successor will need. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "keeper_internal.h"

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = ((const struct vault_record *)a)->id;
	uint64_t y = ((const struct vault_record *)b)->id;

	return (x > y) - (x < y);
}

struct kept *keeper_find(const struct keeper *k, uint64_t id)
{
	struct vault_record key = { .id = id };
	struct kept **found = tfind(&key, &k->kept, compare_ids);

	return found ? *found : NULL;
}

static struct kept *add(struct keeper *k, const struct vault_record *r, int fd)
{
	struct kept *new = malloc(sizeof(*new));

	if (!new)
		return NULL;
	*new = (struct kept){ .record = *r, .fd = fd };
	if (tsearch(new, &k->kept, compare_ids))
		return new;
	free(new);
	return NULL;
}

int keeper_load(struct keeper *k, const struct vault_record *r, unsigned int slot)
{
	struct kept *new = add(k, r, -1);

	if (new)
		new->slot = slot;
	return new ? 0 : -ENOMEM;
}

/* A record that changes keeps its descriptor unless it gets another. */
static void change(struct keeper *k, struct kept *kept, const struct vault_record *r, int fd)
{
	kept->record = *r;
	if (fd >= 0) {
		if (kept->fd >= 0)
			close(kept->fd);
		kept->fd = fd;
	}
	store_put(k, kept, fd >= 0);
}

/* What is kept is not what should be: nobody is to begin with it. */
static void lose(struct keeper *k, int err, const struct vault_record *r, int fd)
{
	log_error(err, "keep record %llu, of kind %u, of /dev/ublkb%u", (unsigned long long)r->id,
		  r->kind, k->device);
	k->stale = true;
	store_give_up(k);
	if (fd >= 0)
		close(fd);
}

void keeper_put(struct keeper *k, const struct vault_record *r, int fd)
{
	struct kept *kept = keeper_find(k, r->id);

	if (kept && kept->record.kind != r->kind) {
		/* Its descriptor is of what it was, and so may be what others say of it. */
		lose(k, -EPROTO, r, fd);
	} else if (kept) {
		change(k, kept, r, fd);
	} else {
		kept = add(k, r, fd);
		if (kept)
			store_put(k, kept, false);
		else
			lose(k, -ENOMEM, r, fd);
	}
}

void keeper_drop(struct keeper *k, uint64_t id)
{
	struct kept *kept = keeper_find(k, id);

	if (!kept)
		return;
	store_drop(k, kept);
	tdelete(kept, &k->kept, compare_ids);
	if (kept->fd >= 0)
		close(kept->fd);
	free(kept);
}

struct sending {
	int sock;
	int error;
};

/* twalk_r() visits inner nodes three times; in order is the second. */
static void send_kept(const void *node, VISIT visit, void *arg)
{
	const struct kept *kept = *(const struct kept *const *)node;
	struct sending *s = arg;

	if (!s->error && (visit == postorder || visit == leaf))
		s->error = vault_send(s->sock, VAULT_PUT, &kept->record, kept->fd);
}

int keeper_send_all(const struct keeper *k, int sock)
{
	struct vault_record none = { 0 };
	struct sending s = { .sock = sock };

	twalk_r(k->kept, send_kept, &s);
	return s.error ? s.error : vault_send(sock, VAULT_END, &none, -1);
}
