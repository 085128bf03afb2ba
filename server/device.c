/* SPDX-License-Identifier: MIT */
/*
 * device.c - set up, serve, take down.
 *
 * The control thread (main) owns everything here: it starts the queue
 * threads, then sits in one poll loop over signals, the sockets, the control
 * ring and the queues' end.  Taking down runs the same steps backwards,
 * however far setting up got.
 */
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "buffers.h"
#include "common/log.h"
#include "common/wire.h"
#include "ctrl.h"
#include "listener.h"
#include "queue.h"
#include "registry.h"
#include "state.h"

struct device {
	const struct options *options;
	struct target target;
	struct ctrl ctrl;
	struct ublksrv_ctrl_dev_info info;
	bool added;
	bool started;
	bool shmem_zc;
	int char_fd;
	int signal_fd;
	int done_fd;
	struct state *state;
	struct registry registry;
	struct buffers buffers;
	struct listener listener;
	bool listening;
	struct queue *queues;
	unsigned int nr_started; /* queues to join */
	int shm_result;		 /* of the --shm-file being registered */
};

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

static void collect(struct device *d)
{
	void *cookie;
	int res;

	while (d->ctrl.fd >= 0 && ctrl_collect(&d->ctrl, &cookie, &res))
		buffers_finished(&d->buffers, cookie, res);
}

/* ---- setting up ---- */

static uint64_t three_quarters_of_memory(void)
{
	struct sysinfo info;

	if (sysinfo(&info) < 0)
		return 1ULL << 30;
	return (uint64_t)info.totalram * info.mem_unit / 4 * 3;
}

static int open_target(struct device *d)
{
	const struct options *o = d->options;

	d->target = (struct target){
		.ops = o->target,
		.path = o->path,
		.read_only = o->read_only,
		.buffered = o->buffered,
		.size = o->size,
		.block_size = o->block_size,
		.fd = -1,
	};
	return d->target.ops->open(&d->target);
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

static int add_device(struct device *d)
{
	uint64_t features = 0;
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
		d->info.flags |= UBLK_F_SHMEM_ZC;
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

static int open_char_device(struct device *d)
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

static int create_state(struct device *d)
{
	const struct target *t = &d->target;
	int ret = state_create(d->info.dev_id, d->info.nr_hw_queues, &d->state);

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
	return 0;
}

static int start_queues(struct device *d)
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

	if (!d->shmem_zc)
		return 0;
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
		collect(d);
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

static int open_listener(struct device *d)
{
	const struct options *o = d->options;
	uint64_t most = three_quarters_of_memory();

	d->buffers = (struct buffers){
		.registry = &d->registry,
		.backend = { .arg = d, .reg = backend_reg, .unreg = backend_unreg },
		.answer = answer,
		.answer_arg = d,
		.max_bytes = o->max_bytes ? o->max_bytes : most,
	};
	d->listener = (struct listener){
		.device = d->info.dev_id,
		.limits = LISTENER_LIMITS_DEFAULT,
		.buffers = &d->buffers,
		.judge_proof = listener_judge_proof,
	};
	d->listener.limits.max_clients = o->max_clients;
	d->listener.limits.max_buffers = o->max_buffers;
	d->listener.limits.max_client_bytes = o->max_client_bytes ? o->max_client_bytes : most;
	d->listening = true;
	return listener_open(&d->listener, WIRE_DIR, WIRE_LEGACY_DIR);
}

/*
 * Merging joins neighbouring requests from unrelated buffers into one that no
 * longer lies in one piece of registered memory, and so is copied.
 */
static void set_nomerges(const struct device *d)
{
	char path[64];
	int fd;

	if (!d->shmem_zc || d->options->merges)
		return;
	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/nomerges", d->info.dev_id);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "2", 1) != 1)
		log_line(LOG_WARN, "%s cannot be set: merged requests will be copied", path);
	if (fd >= 0)
		close(fd);
}

static int start_device(struct device *d)
{
	int ret = ctrl_start_dev(&d->ctrl, d->info.dev_id, getpid());

	if (ret < 0)
		return log_error(ret, "start the device");
	d->started = true;
	set_nomerges(d);
	return 0;
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

static int open_events(struct device *d)
{
	sigset_t set;

	raise_fd_limit(d);
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

static int set_up(struct device *d)
{
	int ret;

	if ((ret = open_events(d)) || (ret = open_target(d)) || (ret = ctrl_open(&d->ctrl)) ||
	    (ret = add_device(d)) || (ret = set_params(d)) || (ret = open_char_device(d)) ||
	    (ret = create_state(d)) || (ret = open_listener(d)))
		return ret;
	for (unsigned int i = 0; i < d->options->nr_shm_files; i++) {
		ret = register_shm_file(d, d->options->shm_files[i]);
		if (ret)
			return ret;
	}
	if ((ret = start_queues(d)) || (ret = start_device(d)))
		return ret;
	return 0;
}

/* ---- serving ---- */

static void show_gauges(struct device *d)
{
	atomic_store_explicit(&d->state->buffers, d->buffers.nr, memory_order_relaxed);
	atomic_store_explicit(&d->state->buffer_bytes, d->buffers.bytes, memory_order_relaxed);
	atomic_store_explicit(&d->state->clients, d->listener.nr_clients, memory_order_relaxed);
	atomic_store_explicit(&d->state->refused, d->listener.refused, memory_order_relaxed);
}

static void serve(struct device *d)
{
	struct pollfd fds[] = {
		{ .fd = d->signal_fd, .events = POLLIN },
		{ .fd = d->done_fd, .events = POLLIN },
		{ .fd = d->listener.epoll, .events = POLLIN },
		{ .fd = ctrl_fd(&d->ctrl), .events = POLLIN },
	};

	while (!fds[0].revents && !fds[1].revents) {
		if (poll(fds, 4, 1000) < 0 && errno != EINTR)
			break;
		collect(d);
		listener_run(&d->listener);
		show_gauges(d);
	}
	if (fds[1].revents)
		log_line(LOG_INFO, "device %u was stopped by somebody else", d->info.dev_id);
}

/* ---- taking down ---- */

static void take_down(struct device *d)
{
	int ret;

	if (d->listening)
		listener_close(&d->listener);
	if (d->added && (d->started || d->nr_started)) {
		ret = ctrl_stop_dev(&d->ctrl, d->info.dev_id);
		if (ret < 0 && ret != -ENODEV)
			log_error(ret, "stop device %u", d->info.dev_id);
	}
	/* On an error half way, closing the last ring ends the queue's commands. */
	for (unsigned int i = 0; i < d->nr_started; i++)
		queue_join(&d->queues[i]);
	free(d->queues);
	if (d->char_fd >= 0)
		close(d->char_fd);
	if (d->added) {
		ret = ctrl_del_dev(&d->ctrl, d->info.dev_id);
		if (ret < 0 && ret != -ENODEV)
			log_error(ret, "delete device %u", d->info.dev_id);
	}
	collect(d);
	buffers_close(&d->buffers);
	if (d->state)
		state_remove(d->info.dev_id);
	ctrl_close(&d->ctrl);
	if (d->target.ops)
		d->target.ops->close(&d->target);
	if (d->done_fd >= 0)
		close(d->done_fd);
	if (d->signal_fd >= 0)
		close(d->signal_fd);
}

int device_serve(const struct options *options, void (*ready)(unsigned int device, void *arg),
		 void *arg)
{
	struct device *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return log_error(-ENOMEM, "start");
	d->options = options;
	d->ctrl = CTRL_CLOSED;
	d->char_fd = d->signal_fd = d->done_fd = -1;
	d->listener.epoll = d->listener.socket = d->listener.legacy = -1;
	ret = set_up(d);
	if (!ret) {
		ready(d->info.dev_id, arg);
		serve(d);
	}
	take_down(d);
	free(d);
	return ret;
}
