/* SPDX-License-Identifier: MIT */
/* device_memory.c - clients' memory: the driver below the buffers, and who brings it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "server/memory/guard.h"
#include "device_internal.h"

/* For which small memory stays registered when nobody wants it. */
#define LINGER_MS 2000
#define ASK_AGAIN_MS 100 /* what the driver could not be asked */

/* ---- the driver as the buffers' backend ---- */

static int backend_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	struct device *d = arg;

	return ctrl_reg_buf(&d->ctrl, d->info.dev_id, reg, cookie);
}

static int backend_unreg(void *arg, unsigned int index, void *cookie)
{
	struct device *d = arg;

	return ctrl_unreg_buf(&d->ctrl, d->info.dev_id, index, cookie);
}

static int backend_list(void *arg, unsigned int first, struct uapi_shmem_buf_info *ret,
			unsigned int nr)
{
	struct device *d = arg;

	return ctrl_list_bufs(&d->ctrl, d->info.dev_id, first, ret, nr);
}

/* Without their table of fixed buffers queues keep nothing of a buffer. */
static bool keeps_buffers(const struct device *d)
{
	return (d->engine->flags & UBLKZC_FIXED) != 0;
}

static bool backend_recall(void *arg)
{
	struct device *d = arg;

	for (unsigned int i = 0; i < d->nr_started; i++)
		queue_wake(&d->queues[i]);
	return d->nr_started > 0;
}

void device_recalled(struct device *d)
{
	uint64_t least = UINT64_MAX;

	for (unsigned int i = 0; i < d->nr_started; i++) {
		uint64_t let_go = fixed_let_go(&d->queues[i].fixed);

		if (let_go < least)
			least = let_go;
	}
	buffers_let_go(&d->buffers, least);
}

static void answer(void *arg, void *client, uint32_t seq, int status, enum wire_reason reason,
		   uint32_t number)
{
	struct device *d = arg;

	if (client)
		listener_answer(&d->listener, client, seq, status, reason, number);
	else
		d->shm_result = status;
}

void device_collect(struct device *d)
{
	void *cookie;
	int res;

	while (d->ctrl.fd >= 0 && ctrl_collect(&d->ctrl, &cookie, &res))
		buffers_finished(&d->buffers, cookie, res);
}

void device_drop_unknown(struct device *d, unsigned int indices)
{
	struct pollfd ring = { .fd = ctrl_fd(&d->ctrl), .events = POLLIN };

	buffers_resume(&d->buffers, d->shmem_zc ? indices : 0);
	while (!buffers_all_known(&d->buffers)) {
		if (!ctrl_has_early(&d->ctrl))
			poll(&ring, 1, ASK_AGAIN_MS);
		device_collect(d);
		buffers_tick(&d->buffers, 0);
	}
}

/* ---- who brings memory ---- */

/* Before START_DEV there is no disk to stop, so this costs clients nothing. */
static int register_shm_file(struct device *d, const char *path)
{
	struct buffer_request req = { 0 };
	enum wire_reason reason;
	struct stat st;
	int ret;

	req.fd = open(path, O_RDWR | O_CLOEXEC);
	if (req.fd < 0 || fstat(req.fd, &st) < 0) {
		ret = log_error(-errno, "--shm-file %s", path);
		goto out;
	}
	req.len = (uint64_t)st.st_size;
	if (!S_ISREG(st.st_mode) || !req.len || req.len % (uint64_t)sysconf(_SC_PAGESIZE)) {
		ret = log_error(-EINVAL, "--shm-file %s: not a file of whole pages (%llu bytes)",
				path, (unsigned long long)req.len);
		goto out;
	}
	d->shm_result = 1;
	ret = buffers_add(&d->buffers, &req, &reason);
	while (!ret && d->shm_result > 0) {
		struct pollfd ring = { .fd = ctrl_fd(&d->ctrl), .events = POLLIN };

		poll(&ring, 1, -1);
		device_collect(d);
	}
	if (!ret)
		ret = d->shm_result;
	if (ret)
		log_error(ret, "--shm-file %s: register %llu bytes", path,
			  (unsigned long long)req.len);
out:
	if (req.fd >= 0)
		close(req.fd);
	return ret;
}

int device_register_shm_files(struct device *d)
{
	int ret = 0;

	d->buffers.at_once = true;
	for (unsigned int i = 0; d->shmem_zc && !ret && i < d->options->nr_shm_files; i++)
		ret = register_shm_file(d, d->options->shm_files[i]);
	d->buffers.at_once = false;
	return ret;
}

static uint64_t quarter_of_memory(void)
{
	struct sysinfo info;

	if (sysinfo(&info) < 0)
		return 1ULL << 28;
	return (uint64_t)info.totalram * info.mem_unit / 4;
}

static uint64_t or_default(uint64_t option, uint64_t quarters)
{
	return option ? option : quarters * quarter_of_memory();
}

int device_open_listener(struct device *d)
{
	const struct options *o = d->options;

	guard_open();
	d->alarm.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->registry.alarm = d->alarm.fd < 0 ? NULL : &d->alarm;
	d->buffers = (struct buffers){
		.registry = &d->registry,
		.backend = { .arg = d,
			     .reg = backend_reg,
			     .unreg = backend_unreg,
			     .list = d->info.flags & UAPI_F_SHMEM_LIST ? backend_list : NULL,
			     .recall = keeps_buffers(d) ? backend_recall : NULL },
		.answer = answer,
		.answer_arg = d,
		.max_bytes = or_default(o->max_bytes, 3),
		.linger = LINGER_MS,
		.no_feature = !d->shmem_zc,
		.vault = d->vault,
	};
	d->listener = (struct listener){
		.device = d->info.dev_id,
		.limits = { .max_clients = o->max_clients,
			    .max_user_clients = o->max_user_clients,
			    .max_buffers = o->max_buffers,
			    .max_client_bytes = or_default(o->max_client_bytes, 2),
			    .max_user_bytes = or_default(o->max_user_bytes, 2),
			    .hello_timeout = LISTENER_HELLO_TIMEOUT },
		.buffers = &d->buffers,
		.vault = d->vault,
		.socket = d->socket_fd,
		.legacy = d->legacy_fd,
		.host = d,
		.resize = device_resize,
		.stop = device_stop,
		.upgrade = handover_asked,
		.judge_proof = listener_judge_proof,
	};
	d->listening = true;
	return listener_open(&d->listener, WIRE_DIR, WIRE_LEGACY_DIR);
}
