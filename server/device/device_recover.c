/* SPDX-License-Identifier: MIT */
/*
 * device_recover.c - become the server of a device whose server died.
 *
 * The driver holds the device's requests back (QUIESCED) until somebody has
 * fetched on all queues again and ends the recovery.  In between nothing is
 * registered or unregistered: the stock driver could wait for ever for requests
 * that nobody serves yet.
 *
 * Requests may name buffers that the dead server had registered.  The successor
 * has them all from the vault.  Without it (recovery by hand) no buffer is
 * known: such requests are copied (request.c), and the stale indices are
 * unregistered once the device runs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/fault.h"
#include "device_internal.h"

/* The driver notices the death of a server when its last request is handed back. */
#define QUIESCE_DEADLINE_MS 60000

/* ---- the driver ---- */

static int begin_recovery(struct device *d)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	int ret = -EBUSY;

	for (int ms = 0; ret == -EBUSY && ms < QUIESCE_DEADLINE_MS; ms += 10) {
		ret = ctrl_start_recovery(&d->ctrl, d->info.dev_id);
		if (ret == -EBUSY)
			nanosleep(&pause, NULL);
	}
	if (ret == -EBUSY)
		return log_error(ret, "device %u: a server is still there", d->info.dev_id);
	if (ret < 0)
		return log_error(ret, "start the recovery of device %u", d->info.dev_id);
	return 0;
}

static int ask_driver(struct device *d, unsigned int number)
{
	int ret = ctrl_get_info(&d->ctrl, number, &d->info);

	if (ret == -ENODEV)
		return log_error(ret, "there is no device %u any more", number);
	if (ret < 0)
		return log_error(ret, "device %u", number);
	if (!(d->info.flags & UBLK_F_USER_RECOVERY))
		return log_error(-EOPNOTSUPP,
				 "device %u was added without recovery (ublkzc del removes it)",
				 number);
	d->added = true;
	d->shmem_zc = (d->info.flags & UBLK_F_SHMEM_ZC) != 0;
	return 0;
}

/* The device's size is what the driver says; is the storage still as large? */
static int check_size(struct device *d)
{
	struct uapi_params params = { 0 };
	int ret = ctrl_get_params(&d->ctrl, d->info.dev_id, &params);

	if (ret < 0)
		return log_error(ret, "device %u: its parameters", d->info.dev_id);
	if (d->size < params.basic.dev_sectors << 9)
		log_line(LOG_ERROR,
			 "%s has shrunk to %llu bytes; I/O beyond fails, the device has %llu",
			 d->target.path ? d->target.path : d->engine->name,
			 (unsigned long long)d->size,
			 (unsigned long long)params.basic.dev_sectors << 9);
	if (d->target.max_io < d->info.max_io_buf_bytes)
		return log_error(-EINVAL, "engine %s takes %u bytes at once, the device has %u",
				 d->engine->name, d->target.max_io, d->info.max_io_buf_bytes);
	d->size = params.basic.dev_sectors << 9;
	d->target.block_size = 1U << params.basic.logical_bs_shift;
	return 0;
}

/* Nothing of a predecessor's storage is there. */
static int contents_are_there(const struct device *d, unsigned int number)
{
	if (!(d->options->engine->flags & UBLKZC_IN_MEMORY))
		return 0;
	return log_error(-ENODATA,
			 "device %u was a RAM disk: its contents went with its server and its "
			 "keeper (ublkzc del -n %u removes it)",
			 number, number);
}

/*
 * Below which all indices are that the dead server may have had: it shows each that it learns of,
 * and one registration may have been under way.
 */
static unsigned int indices_of(const struct state *state)
{
	uint64_t indices = counter_get(&state->indices) + 1;

	return indices < BUFFERS_ALL_INDICES ? (unsigned int)indices : BUFFERS_ALL_INDICES;
}

static int resume(struct device *d)
{
	int ret;

	if ((ret = device_fence(d)) || (ret = device_start_queues(d)))
		return ret;
	ret = ctrl_end_recovery(&d->ctrl, d->info.dev_id, getpid());
	if (ret < 0)
		return log_error(ret, "end the recovery of device %u", d->info.dev_id);
	d->started = true;
	state_taken_over(d->state);
	return 0;
}

/* ---- from the vault ---- */

/* What is not the device's own. */
struct legacy {
	struct vault_record record;
	int fd;
};

struct heir {
	struct device *d;
	unsigned int number;
	bool has_number;
	int state_fd;
	bool keeper_died;	 /* too: what the driver has is not known */
	struct legacy *legacies; /* in order of age */
	unsigned int nr, room;
};

/* Before anything is asked of the driver: nobody could serve without. */
static int adopt_state(struct heir *h)
{
	int ret = state_adopt(h->state_fd, &h->d->state);

	if (ret == -EBADMSG)
		return log_error(ret, "device %u: its state file is of another version of ublkzc",
				 h->number);
	return ret ? log_error(ret, "the state of device %u", h->number) : 0;
}

/*
 * Only a keeper that was started anew has records and no lock: its predecessor's went with it, and
 * with it what that had not read yet.
 */
static int succeed_keeper(struct heir *h)
{
	struct device *d = h->d;
	int ret;

	if (d->locked)
		return 0;
	h->keeper_died = true;
	if (d->backing_fd < 0 && (ret = contents_are_there(d, h->number)))
		return ret;
	return device_take_lock(d);
}

/*
 * The device must be known, and its sockets, before the first client is; and all records, before
 * the first new one is made, which may have no other's id.
 */
static int prepare(struct heir *h)
{
	struct device *d = h->d;
	int ret;

	if (!h->has_number)
		return log_error(-EPROTO, "the keeper names no device");
	if ((ret = ctrl_open(&d->ctrl)) || (ret = ask_driver(d, h->number)) ||
	    (ret = succeed_keeper(h)) || (ret = adopt_state(h)) || (ret = device_open_target(d)) ||
	    (ret = check_size(d)) || (ret = begin_recovery(d)) || (ret = device_open_char(d)))
		return ret;
	ret = device_open_listener(d);
	d->buffers.paused = true;
	return ret;
}

static void inherit_use(struct device *d, const struct vault_record *r)
{
	struct client *c = listener_find(&d->listener, r->use.client);
	int ret;

	if (r->use.client && !c)
		return; /* it hung up in the predecessor's last moment */
	ret = buffers_restore_use(&d->buffers, r, c, c ? listener_restore_use(c) : NULL);
	if (ret && ret != -ENOENT)
		log_error(ret, "memory of a client is copied, its record cannot be restored");
}

/* What cannot be restored is copied; that must not keep the device from being served. */
static void inherit_memory(struct device *d, const struct vault_record *r, int fd)
{
	int ret = buffers_restore(&d->buffers, r, fd);

	if (ret)
		log_error(ret, "memory of a client is copied, its record cannot be restored");
}

static void inherit_later(struct device *d, const struct vault_record *r, int fd)
{
	if (r->kind == VAULT_USE) {
		inherit_use(d, r);
	} else if (r->kind == VAULT_FILE || r->kind == VAULT_BUFFER) {
		inherit_memory(d, r, fd);
	} else if (fd >= 0) {
		listener_restore(&d->listener, r, fd);
		return;
	}
	if (fd >= 0)
		close(fd);
}

static int add_legacy(struct heir *h, const struct vault_record *r, int fd)
{
	if (h->nr == h->room) {
		unsigned int room = h->room ? h->room * 2 : 64;
		void *bigger = reallocarray(h->legacies, room, sizeof(h->legacies[0]));

		if (!bigger)
			return log_error(-ENOMEM, "the keeper's records");
		h->legacies = bigger;
		h->room = room;
	}
	h->legacies[h->nr++] = (struct legacy){ *r, fd };
	return 0;
}

static int inherit_record(struct heir *h, const struct vault_record *r, int fd)
{
	switch (r->kind) {
	case VAULT_STATE:
		h->number = r->state.number;
		h->has_number = true;
		h->state_fd = fd;
		return 0;
	case VAULT_LOCK:
		h->d->locked = true; /* held for as long as this process lives */
		return 0;
	case VAULT_BACKING:
		h->d->backing_fd = fd;
		return 0;
	case VAULT_SOCKET:
		h->d->socket_fd = fd;
		return 0;
	case VAULT_LEGACY_SOCKET:
		h->d->legacy_fd = fd;
		return 0;
	default:
		return add_legacy(h, r, fd);
	}
}

static int inherit_all(struct heir *h)
{
	struct vault_record r;
	int ret;
	int fd;

	while ((ret = vault_next(h->d->vault, &r, &fd)) == 1) {
		ret = inherit_record(h, &r, fd);
		if (ret)
			return ret;
	}
	if (ret < 0)
		return log_error(ret, "the keeper's records");
	ret = prepare(h);
	for (unsigned int i = 0; !ret && i < h->nr; i++)
		inherit_later(h->d, &h->legacies[i].record, h->legacies[i].fd);
	free(h->legacies);
	return ret;
}

int device_inherit(struct device *d)
{
	struct heir h = { .d = d, .state_fd = -1 };
	int ret;

	FAULT_POINT("inheriting");
	if ((ret = device_open_events(d)) || (ret = inherit_all(&h)) || (ret = resume(d)))
		return ret;
	if (h.keeper_died)
		d->state->keeper = getppid();
	listener_resume(&d->listener);
	buffers_resume(&d->buffers, h.keeper_died && d->shmem_zc ? indices_of(d->state) : 0);
	return 0;
}

/* ---- would it work? ---- */

bool device_is_recoverable(unsigned int number)
{
	struct ublksrv_ctrl_dev_info info = { 0 };
	struct ctrl ctrl;
	int ret = ctrl_open(&ctrl);

	if (ret)
		return false;
	ret = ctrl_get_info(&ctrl, number, &info);
	ctrl_close(&ctrl);
	return !ret && (info.flags & UBLK_F_USER_RECOVERY);
}

static bool known(const struct vault_record *r)
{
	return r->kind >= VAULT_STATE && r->kind < VAULT_KINDS;
}

/* Descriptors are closed as they come: the keeper has them. */
static int look_at_all(struct heir *h)
{
	struct vault_record r;
	int ret;
	int fd;

	while ((ret = vault_next(h->d->vault, &r, &fd)) == 1) {
		if (r.kind == VAULT_STATE && fd >= 0) {
			h->number = r.state.number;
			h->has_number = true;
			h->state_fd = fd;
		} else if (fd >= 0) {
			close(fd);
		}
		if (!known(&r))
			return log_error(-EPROTO, "a record of kind %u", r.kind);
	}
	if (ret < 0 || !h->has_number)
		return log_error(-EPROTO, "the keeper's records");
	return 0;
}

int device_rehearse(struct vault *vault)
{
	struct device d = { .vault = vault, .ctrl = CTRL_CLOSED };
	struct heir h = { .d = &d, .state_fd = -1 };
	int ret;

	if ((ret = look_at_all(&h)) || (ret = adopt_state(&h)) || (ret = ctrl_open(&d.ctrl)))
		return ret;
	ret = ask_driver(&d, h.number);
	ctrl_close(&d.ctrl);
	return ret;
}

/* ---- by hand ---- */

static unsigned int indices_used(unsigned int number)
{
	unsigned int indices = BUFFERS_ALL_INDICES;
	const struct state *old;

	if (state_open(number, &old) == 0) {
		indices = indices_of(old);
		state_close(old);
	}
	return indices;
}

/* A recovery that fails half way must not forget which indices there were. */
static int create_state(struct device *d, unsigned int indices)
{
	int ret = device_create_state(d);

	if (!ret)
		atomic_store_explicit(&d->state->indices, indices, memory_order_relaxed);
	return ret;
}

int device_adopt(struct device *d, unsigned int number)
{
	unsigned int indices = indices_used(number);
	int ret;

	if ((ret = contents_are_there(d, number)) || (ret = device_open_events(d)) ||
	    (ret = ctrl_open(&d->ctrl)) || (ret = ask_driver(d, number)) ||
	    (ret = device_take_lock(d)) || (ret = device_open_target(d)) || (ret = check_size(d)) ||
	    (ret = begin_recovery(d)) || (ret = device_open_char(d)) ||
	    (ret = create_state(d, indices)) || (ret = resume(d)) ||
	    (ret = device_open_listener(d)))
		return ret;
	device_drop_unknown(d, indices);
	return device_register_shm_files(d);
}
