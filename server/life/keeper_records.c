/* SPDX-License-Identifier: MIT */
/* keeper_records.c - what a successor will need. */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "keeper_internal.h"

struct kept {
	struct vault_record record; /* first: compared by its id */
	int fd;			    /* -1: none */
};

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = ((const struct vault_record *)a)->id;
	uint64_t y = ((const struct vault_record *)b)->id;

	return (x > y) - (x < y);
}

void keeper_put(struct keeper *k, const struct vault_record *r, int fd)
{
	struct kept **found = tfind(r, &k->kept, compare_ids);
	struct kept *new;

	if (found) {
		/* A record that changes keeps its descriptor unless it gets another. */
		(*found)->record = *r;
		if (fd >= 0) {
			if ((*found)->fd >= 0)
				close((*found)->fd);
			(*found)->fd = fd;
		}
		return;
	}
	new = malloc(sizeof(*new));
	if (new) {
		*new = (struct kept){ .record = *r, .fd = fd };
		if (tsearch(new, &k->kept, compare_ids))
			return;
	}
	log_error(-ENOMEM, "keep a record of device %u", k->device);
	k->stale = true;
	free(new);
	if (fd >= 0)
		close(fd);
}

void keeper_drop(struct keeper *k, uint64_t id)
{
	struct vault_record key = { .id = id };
	struct kept **found = tfind(&key, &k->kept, compare_ids);
	struct kept *kept = found ? *found : NULL;

	if (!kept)
		return;
	tdelete(&key, &k->kept, compare_ids);
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
