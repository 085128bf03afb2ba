/* SPDX-License-Identifier: MIT */
/*
 * keeper_store.c - the records in the hands of the service manager too (manager.h), for the day on
 * which keeper and server both die.
 *
 * What they say is in a memfd, which the manager gets once: a slot for each record, written in one
 * call and within a page, so that a record is there or is not.  Its descriptor is left under its
 * id, which is never another record's, after the slot was written; the slot is cleared before the
 * manager is told to forget.  So whatever is lost by a death, by a manager that has no room, or by
 * what hung up, is lost whole: a descriptor without its record is closed, a record without its
 * descriptor dropped.
 *
 * The keeper may die before it has read what its server told last.  So nothing is here of which
 * memory the driver has under which index (VAULT_BUFFER): the next server asks the driver, and
 * registers anew what is wanted.  Nor is the lock, which ends with those who serve, nor are the
 * sockets that listen: who connects while nobody does is refused at once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"
#include "keeper_internal.h"
#include "manager.h"
#include "state.h"

#define RECORDS "records" /* what the memfd is left under */
#define MAGIC "ublkzc0"

/* In the place of a record. */
struct header {
	char magic[8];
	uint32_t vault_version, state_version;
	uint32_t record_bytes;
	uint8_t pad[sizeof(struct vault_record) - 20];
};

_Static_assert(sizeof(struct header) == sizeof(struct vault_record), "the first slot");
_Static_assert(4096 % sizeof(struct vault_record) == 0, "no slot lies in two pages");

static const struct header header = {
	.magic = MAGIC,
	.vault_version = VAULT_VERSION,
	.state_version = STATE_VERSION,
	.record_bytes = sizeof(struct vault_record),
};

static bool is_stored(const struct vault_record *r)
{
	switch (r->kind) {
	case VAULT_STATE:
	case VAULT_BACKING:
	case VAULT_CLIENT:
	case VAULT_ATTACHED:
	case VAULT_USE:
	case VAULT_FILE:
		return true;
	default:
		return false;
	}
}

static bool has_descriptor(const struct vault_record *r)
{
	return r->kind != VAULT_USE;
}

/* ---- what the manager is told ---- */

static void make_name(char name[MANAGER_NAME_MAX], uint64_t id)
{
	if (id)
		snprintf(name, MANAGER_NAME_MAX, "%llx", (unsigned long long)id);
	else
		snprintf(name, MANAGER_NAME_MAX, RECORDS);
}

static int carry_out(const struct keeper *k, struct store_task t)
{
	const struct kept *kept;
	char name[MANAGER_NAME_MAX];

	make_name(name, t.id);
	if (t.forget)
		return manager_forget(name);
	if (!t.id)
		return k->store.fd < 0 ? 0 : manager_keep(name, k->store.fd);
	kept = keeper_find(k, t.id);
	return kept ? manager_keep(name, kept->fd) : 0; /* dropped meanwhile */
}

/* The manager is busy, or so many descriptors are under way. */
static bool is_for_later(int err)
{
	return err == -EAGAIN || err == -ENOBUFS || err == -ENOMEM || err == -ETOOMANYREFS;
}

/* Without the records the descriptors mean nothing, whether they are forgotten or not. */
static void take_back(struct keeper *k)
{
	if (ftruncate(k->store.fd, 0) < 0)
		log_error(-errno, "take back the records of /dev/ublkb%u", k->device);
	close(k->store.fd);
	k->store.fd = -1;
}

void store_go_on(struct keeper *k)
{
	struct store *s = &k->store;
	unsigned int done = 0;
	int ret = 0;

	while (done < s->nr_tasks && !(ret = carry_out(k, s->tasks[done])))
		done++;
	s->nr_tasks -= done;
	memmove(s->tasks, s->tasks + done, s->nr_tasks * sizeof(s->tasks[0]));
	if (!ret || is_for_later(ret))
		return;
	log_error(ret, "the service manager does not keep the records of /dev/ublkb%u", k->device);
	s->nr_tasks = 0;
	if (s->fd >= 0)
		take_back(k);
}

static void tell(struct keeper *k, uint64_t id, bool forget)
{
	struct store *s = &k->store;

	if (s->nr_tasks == s->room) {
		unsigned int room = s->room ? s->room * 2 : 64;
		void *bigger = reallocarray(s->tasks, room, sizeof(s->tasks[0]));

		if (!bigger)
			return; /* it keeps too much, or too little: the next start sees */
		s->tasks = bigger;
		s->room = room;
	}
	s->tasks[s->nr_tasks++] = (struct store_task){ .id = id, .forget = forget };
}

/* ---- slots ---- */

static bool write_slot(const struct store *s, unsigned int slot, const void *record)
{
	const size_t size = sizeof(struct vault_record);

	return pwrite(s->fd, record, size, (off_t)(slot * size)) == (ssize_t)size;
}

static bool read_slot(int fd, unsigned int slot, void *record)
{
	const size_t size = sizeof(struct vault_record);

	return pread(fd, record, size, (off_t)(slot * size)) == (ssize_t)size;
}

/* @slot is free; where there is no memory to note it, it is not used again. */
static void add_free(struct store *s, unsigned int slot)
{
	if (s->nr_free == s->free_room) {
		unsigned int room = s->free_room ? s->free_room * 2 : 64;
		void *bigger = reallocarray(s->free, room, sizeof(s->free[0]));

		if (!bigger)
			return;
		s->free = bigger;
		s->free_room = room;
	}
	s->free[s->nr_free++] = slot;
}

static unsigned int take_slot(struct store *s)
{
	return s->nr_free ? s->free[--s->nr_free] : s->nr_slots++;
}

/* ---- changes ---- */

void store_put(struct keeper *k, struct kept *kept, bool other_fd)
{
	struct store *s = &k->store;
	bool is_new = !kept->slot;

	if (s->fd < 0 || !is_stored(&kept->record))
		return;
	if (is_new)
		kept->slot = take_slot(s);
	if (!write_slot(s, kept->slot, &kept->record)) {
		log_error(-errno, "keep a record of /dev/ublkb%u for the service manager",
			  k->device);
		store_give_up(k);
		return;
	}
	if (other_fd && !is_new)
		tell(k, kept->record.id, true);
	if (other_fd || (is_new && kept->fd >= 0))
		tell(k, kept->record.id, false);
	store_go_on(k);
}

void store_drop(struct keeper *k, const struct kept *kept)
{
	static const struct vault_record none;
	struct store *s = &k->store;

	if (s->fd < 0 || !kept->slot)
		return;
	if (!write_slot(s, kept->slot, &none)) {
		store_give_up(k);
		return;
	}
	add_free(s, kept->slot);
	if (kept->fd >= 0)
		tell(k, kept->record.id, true);
	store_go_on(k);
}

static void forget_each(const void *node, VISIT visit, void *arg)
{
	struct kept *kept = *(struct kept *const *)node;

	if ((visit != postorder && visit != leaf) || !kept->slot)
		return;
	kept->slot = 0;
	tell(arg, kept->record.id, true);
}

void store_give_up(struct keeper *k)
{
	if (k->store.fd < 0)
		return;
	take_back(k);
	twalk_r(k->kept, forget_each, k);
	tell(k, 0, true);
	store_go_on(k);
}

/* ---- at the start ---- */

static int create(struct keeper *k)
{
	struct store *s = &k->store;

	s->fd = memfd_create("ublkzc-records", MFD_CLOEXEC);
	s->nr_slots = 1;
	if (s->fd < 0 || !write_slot(s, 0, &header))
		return log_error(-errno, "records for the service manager");
	tell(k, 0, false);
	store_go_on(k);
	return 0;
}

static int find_name(const struct manager_fd *left, unsigned int nr, uint64_t id)
{
	char name[MANAGER_NAME_MAX];

	make_name(name, id);
	for (unsigned int i = 0; i < nr; i++)
		if (strcmp(left[i].name, name) == 0)
			return left[i].fd;
	return -1;
}

int keeper_left(const struct manager_fd *left, unsigned int nr)
{
	int fd = find_name(left, nr, 0);
	struct vault_record r;
	struct header found;

	if (fd < 0)
		return -ENOENT;
	if (!read_slot(fd, 0, &found) || memcmp(&found, &header, sizeof(header)) != 0)
		return -EPROTO;
	for (unsigned int slot = 1; read_slot(fd, slot, &r); slot++)
		if (r.id && r.kind == VAULT_STATE && find_name(left, nr, r.id) >= 0)
			return (int)r.state.number;
	return -ENOENT;
}

void keeper_forget_left(const struct manager_fd *left, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		manager_forget(left[i].name);
		close(left[i].fd);
	}
	/* Who opens the storage anew must not find it in use. */
	if (nr)
		manager_wait(STORE_FORGET_MS);
}

static int load_records(struct keeper *k)
{
	struct store *s = &k->store;
	struct vault_record r;

	for (s->nr_slots = 1; read_slot(s->fd, s->nr_slots, &r); s->nr_slots++) {
		if (!r.id) {
			add_free(s, s->nr_slots);
			continue;
		}
		if (keeper_load(k, &r, s->nr_slots))
			return -ENOMEM;
		if (r.kind == VAULT_STATE)
			k->device = r.state.number;
	}
	return 0;
}

static void load_descriptors(struct keeper *k, const struct manager_fd *left, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		char *end;
		uint64_t id = strtoull(left[i].name, &end, 16);
		struct kept *kept = *end ? NULL : keeper_find(k, id);

		if (left[i].fd == k->store.fd)
			continue;
		if (kept && has_descriptor(&kept->record) && kept->fd < 0) {
			kept->fd = left[i].fd;
			continue;
		}
		/* Of two under one name nobody knows which is meant. */
		if (kept)
			keeper_drop(k, id);
		else
			manager_forget(left[i].name);
		close(left[i].fd);
	}
}

/* Its descriptor hung up, or there was no room for it; or that of what it is about. */
static bool is_incomplete(const struct keeper *k, const struct vault_record *r)
{
	if (has_descriptor(r))
		return keeper_find(k, r->id)->fd < 0;
	return !keeper_find(k, r->use.file) || (r->use.client && !keeper_find(k, r->use.client));
}

static void drop_incomplete(struct keeper *k, bool with_descriptor)
{
	struct vault_record r;

	for (unsigned int slot = 1; slot < k->store.nr_slots; slot++)
		if (read_slot(k->store.fd, slot, &r) && r.id &&
		    has_descriptor(&r) == with_descriptor && is_incomplete(k, &r))
			keeper_drop(k, r.id);
}

int store_open(struct keeper *k)
{
	const struct keeper_start *start = k->start;
	int ret;

	if (!start->nr_left)
		return manager_listens() ? create(k) : 0;
	k->store.fd = find_name(start->left, start->nr_left, 0);
	ret = load_records(k);
	if (ret)
		return log_error(ret, "the records that the service manager kept");
	load_descriptors(k, start->left, start->nr_left);
	drop_incomplete(k, true);
	drop_incomplete(k, false);
	k->live = true;
	return 0;
}
