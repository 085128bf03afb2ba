/* SPDX-License-Identifier: MIT */
/* device_setup.c - the steps that lead to a live device. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "device_internal.h"
#include "privileges.h"

/* ---- the driver as the buffers' backend ---- */

static int backend_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	struct device *d = arg;

	if (!d->shmem_zc)
		return -EOPNOTSUPP;
	return ctrl_reg_buf(&d->ctrl, d->info.dev_id, reg, cookie);
}

static int backend_unreg(void *arg, unsigned int index, void *cookie)
{
	struct device *d = arg;

	return ctrl_unreg_buf(&d->ctrl, d->info.dev_id, index, cookie);
}

static void answer(void *arg, void *client, uint32_t seq, int status, enum wire_reason reason,
		   unsigned int index, uint64_t len)
{
	struct device *d = arg;

	if (client)
		listener_answer(&d->listener, client, seq, status, reason, index, len);
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

static uint64_t three_quarters_of_memory(void)
{
	struct sysinfo info;

	if (sysinfo(&info) < 0)
		return 1ULL << 30;
	return (uint64_t)info.totalram * info.mem_unit / 4 * 3;
}

int device_open_target(struct device *d)
{
	struct vault_record record = { .kind = VAULT_BACKING };
	const struct options *o = d->options;
	int inherited = d->backing_fd;
	int ret;

	d->target = (struct target){
		.ops = o->target,
		.path = o->path,
		.read_only = o->read_only,
		.buffered = o->buffered,
		.size = o->size,
		.block_size = o->block_size,
		.fd = inherited,
	};
	ret = d->target.ops->open(&d->target);
	if (!ret && inherited < 0 && d->target.fd >= 0)
		vault_put(d->vault, &record, d->target.fd);
	return ret;
}

static int explain_add_error(const struct device *d, int ret)
{
	if (ret == -EEXIST)
		return log_error(ret, "device id %d is in use (ublkzc list; -n chooses another)",
				 d->options->device);
	if (ret == -EPERM || ret == -EACCES)
		return log_error(ret, "adding a ublk device needs root (CAP_SYS_ADMIN)");
	return log_error(ret, "add the device");
}

/* What happens to I/O while there is no server. */
static int set_recovery(struct device *d, uint64_t features)
{
	uint64_t flags = 0;

	if (d->options->recovery == RECOVERY_REISSUE)
		flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE;
	else if (d->options->recovery == RECOVERY_FAIL)
		flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_FAIL_IO;
	d->info.flags |= flags;
	if ((features & flags) == flags)
		return 0;
	return log_error(-EOPNOTSUPP,
			 "--recovery %s: this kernel's ublk driver cannot (fail: Linux 6.13 and "
			 "newer can); --recovery none does without",
			 d->options->recovery == RECOVERY_FAIL ? "fail" : "reissue");
}

static int add_device(struct device *d)
{
	uint64_t features = 0;
	const uint64_t extensions = UAPI_F_SHMEM_LIST | UAPI_F_SHMEM_SEGS;
	bool wanted = !d->options->copy_only;
	int ret;

	ret = ctrl_get_features(&d->ctrl, &features);
	if (ret < 0 || !(features & UBLK_F_USER_COPY))
		return log_error(ret < 0 ? ret : -EOPNOTSUPP,
				 "this kernel's ublk driver has no UBLK_F_USER_COPY (Linux 6.5 and "
				 "newer have)");
	d->info = (struct ublksrv_ctrl_dev_info){
		.nr_hw_queues = (uint16_t)d->options->nr_queues,
		.queue_depth = (uint16_t)d->options->depth,
		.max_io_buf_bytes = d->options->max_io,
		.dev_id = (uint32_t)d->options->device,
		.flags = UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE,
	};
	if (wanted && (features & UBLK_F_SHMEM_ZC))
		d->info.flags |= UBLK_F_SHMEM_ZC | (features & extensions);
	ret = set_recovery(d, features);
	if (ret)
		return ret;
	ret = ctrl_add_dev(&d->ctrl, &d->info);
	if (ret < 0)
		return explain_add_error(d, ret);
	d->added = true;
	/* Older drivers clear flags that they do not know, without an error. */
	d->shmem_zc = (d->info.flags & UBLK_F_SHMEM_ZC) != 0;
	if (wanted && !d->shmem_zc)
		log_line(LOG_WARN, "this kernel's ublk driver has no shared-memory zero copy "
				   "(7.1 and newer have, or kernel-patch/): everything is copied");
	return 0;
}

static unsigned int shift_of(uint32_t power_of_two)
{
	return (unsigned int)__builtin_ctz(power_of_two);
}

static int set_params(struct device *d)
{
	const struct target *t = &d->target;
	struct uapi_params params = {
		.types = UBLK_PARAM_TYPE_BASIC | UAPI_PARAM_TYPE_DMA_ALIGN,
		.basic = {
			.logical_bs_shift = (uint8_t)shift_of(t->block_size),
			.physical_bs_shift = (uint8_t)shift_of(t->block_size < 4096 ? 4096 : t->block_size),
			.io_opt_shift = 12,
			.io_min_shift = (uint8_t)shift_of(t->block_size),
			.max_sectors = d->info.max_io_buf_bytes >> 9,
			.dev_sectors = t->size >> 9,
		},
		/* Clients' buffers at least this aligned; before 6.15 we bounce. */
		.dma = { .alignment = (t->memory_align > 4 ? t->memory_align : 4) - 1 },
	};
	int ret;

	if (t->read_only)
		params.basic.attrs |= UBLK_ATTR_READ_ONLY;
	if (t->volatile_cache)
		params.basic.attrs |= UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA;
	if (t->discard) {
		params.types |= UBLK_PARAM_TYPE_DISCARD;
		params.discard = (struct ublk_param_discard){
			.discard_granularity = t->block_size < 4096 ? 4096 : t->block_size,
			.max_discard_sectors = 1U << 21, /* 1 GiB */
			.max_write_zeroes_sectors = 1U << 21,
			.max_discard_segments = 1,
		};
	}
	ret = ctrl_set_params(&d->ctrl, d->info.dev_id, &params);
	return ret < 0 ? log_error(ret, "set the device's parameters") : 0;
}

int device_add(struct device *d)
{
	int ret = add_device(d);

	return ret ? ret : set_params(d);
}

int device_open_char(struct device *d)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	char path[32];
	int ret;

	snprintf(path, sizeof(path), "/dev/ublkc%u", d->info.dev_id);
	/* udev may still be setting its mode: up to a second. */
	for (int i = 0; i < 100; i++) {
		d->char_fd = open(path, O_RDWR | O_CLOEXEC);
		if (d->char_fd >= 0)
			return 0;
		ret = -errno;
		if (ret != -ENOENT && ret != -EACCES)
			break;
		nanosleep(&pause, NULL);
	}
	return log_error(ret, "%s", path);
}

int device_create_state(struct device *d)
{
	const struct target *t = &d->target;
	struct vault_record record = {
		.kind = VAULT_STATE,
		.state = { .number = d->info.dev_id },
	};
	int fd = -1;
	int ret = state_create(d->info.dev_id, d->info.nr_hw_queues, &d->state, &fd);

	if (ret)
		return log_error(ret, STATE_DIR "/ublkb%u.stat", d->info.dev_id);
	d->state->depth = d->info.queue_depth;
	d->state->block_size = t->block_size;
	d->state->size = t->size;
	d->state->shmem_zc = d->shmem_zc;
	d->state->read_only = t->read_only;
	snprintf(d->state->target, sizeof(d->state->target), "%s", t->ops->name);
	if (t->path)
		snprintf(d->state->path, sizeof(d->state->path), "%s", t->path);
	d->state->keeper = d->vault->fd >= 0 ? getppid() : 0;
	vault_put(d->vault, &record, fd);
	return 0;
}

int device_start_queues(struct device *d)
{
	d->queues = calloc(d->info.nr_hw_queues, sizeof(*d->queues));
	if (!d->queues)
		return -ENOMEM;
	for (unsigned int i = 0; i < d->info.nr_hw_queues; i++) {
		struct queue_config config = {
			.id = i,
			.depth = d->info.queue_depth,
			.max_io = d->info.max_io_buf_bytes,
			.char_fd = d->char_fd,
			.shmem_zc = d->shmem_zc,
			.lists = (d->info.flags & UAPI_F_SHMEM_SEGS) != 0,
			.target = &d->target,
			.registry = &d->registry,
			.counters = &d->state->queues[i],
		};
		int ret = queue_start(&d->queues[i], &config, d->done_fd);

		if (ret)
			return ret;
		d->nr_started++;
	}
	return 0;
}

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

	for (unsigned int i = 0; d->shmem_zc && !ret && i < d->options->nr_shm_files; i++)
		ret = register_shm_file(d, d->options->shm_files[i]);
	return ret;
}

int device_open_listener(struct device *d)
{
	const struct options *o = d->options;
	uint64_t most = three_quarters_of_memory();

	d->buffers = (struct buffers){
		.registry = &d->registry,
		.backend = { .arg = d, .reg = backend_reg, .unreg = backend_unreg },
		.answer = answer,
		.answer_arg = d,
		.max_bytes = o->max_bytes ? o->max_bytes : most,
		.vault = d->vault,
	};
	d->listener = (struct listener){
		.device = d->info.dev_id,
		.limits = { .max_clients = o->max_clients,
			    .max_user_clients = o->max_user_clients,
			    .max_buffers = o->max_buffers,
			    .max_client_bytes = o->max_client_bytes ? o->max_client_bytes : most,
			    .max_user_bytes = o->max_user_bytes ? o->max_user_bytes : most,
			    .hello_timeout = LISTENER_HELLO_TIMEOUT },
		.buffers = &d->buffers,
		.vault = d->vault,
		.socket = d->socket_fd,
		.legacy = d->legacy_fd,
		.resize = device_resize,
		.resize_arg = d,
		.judge_proof = listener_judge_proof,
	};
	d->listening = true;
	return listener_open(&d->listener, WIRE_DIR, WIRE_LEGACY_DIR);
}

/* Each client is a descriptor: what --max-clients allows must be possible. */
static void raise_fd_limit(const struct device *d)
{
	struct rlimit limit;
	rlim_t wanted = d->options->max_clients + 256U;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted)
		limit.rlim_max = wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_line(LOG_WARN,
			 "the limit of descriptors cannot be raised to %llu: fewer clients than "
			 "--max-clients",
			 (unsigned long long)wanted);
}

int device_open_events(struct device *d)
{
	sigset_t set;

	raise_fd_limit(d);
	privileges_keep_control();
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	/* Before any thread is made, so that all inherit the mask. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->signal_fd < 0)
		return log_error(-errno, "signalfd");
	d->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->done_fd < 0)
		return log_error(-errno, "eventfd");
	return 0;
}
