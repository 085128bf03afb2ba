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
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/fault.h"
#include "server/life/privileges.h"
#include "device_internal.h"

/* ---- setting up ---- */

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

static int set_up(struct device *d)
{
	int ret;

	if ((ret = device_open_events(d)) || (ret = device_open_target(d)) ||
	    (ret = ctrl_open(&d->ctrl)) || (ret = device_add(d)) || (ret = device_open_char(d)) ||
	    (ret = device_take_lock(d)) || (ret = device_create_state(d)) ||
	    (ret = device_open_listener(d)) || (ret = device_register_shm_files(d)) ||
	    (ret = device_start_queues(d)) || (ret = start_device(d)))
		return ret;
	return 0;
}

/* ---- serving ---- */

static void show_gauges(struct device *d)
{
	atomic_store_explicit(&d->state->buffers, d->buffers.nr, memory_order_relaxed);
	atomic_store_explicit(&d->state->buffer_bytes, d->buffers.bytes, memory_order_relaxed);
	atomic_store_explicit(&d->state->indices, d->buffers.indices, memory_order_relaxed);
	atomic_store_explicit(&d->state->clients, d->listener.nr_clients, memory_order_relaxed);
	atomic_store_explicit(&d->state->refused, d->listener.refused, memory_order_relaxed);
}

/*
 * The queues have ended although nobody asked us to stop.  The driver, where it is told to
 * stop, says that the device is dead; else it gave up a server that is still there (Linux
 * 6.12 can, when a successor is very quick), and the device waits for another.
 */
static bool is_stopped(struct device *d)
{
	struct ublksrv_ctrl_dev_info info = { 0 };
	int ret = ctrl_get_info(&d->ctrl, d->info.dev_id, &info);

	if (ret < 0 || info.state == UBLK_S_DEV_DEAD || !(info.flags & UBLK_F_USER_RECOVERY)) {
		log_line(LOG_INFO, "device %u was stopped by somebody else", d->info.dev_id);
		return true;
	}
	log_line(LOG_ERROR, "device %u: the driver took the requests back, state %u",
		 d->info.dev_id, info.state);
	return false;
}

/* What might not have been copied, had its memory been registered. */
static uint64_t copied_requests(const struct state *state)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < state->nr_queues; i++)
		sum += counter_get(&state->queues[i].copied_nothing_registered) +
		       counter_get(&state->queues[i].copied_other_memory);
	return sum;
}

/*
 * Memory has gone while the engine touched it.  Its requests are copied; somebody should know why,
 * but a client can do it for ever, so it is said once.
 */
static void note_rescues(struct device *d)
{
	unsigned int rescues = registry_rescues(&d->registry);

	if (rescues == d->rescues)
		return;
	if (!d->rescues)
		log_line(LOG_WARN,
			 "a client has truncated or punched registered memory while the engine "
			 "touched it: its requests are copied (this is said once)");
	d->rescues = rescues;
	buffers_rescued(&d->buffers);
}

/* Let memory be looked at that may have come; returns the ms until the next time. */
static int tick_buffers(struct device *d)
{
	uint64_t copied = copied_requests(d->state);
	int wait = buffers_tick(&d->buffers, copied);

	if (!d->buffers.waits || !d->registry.alarm)
		return wait;
	atomic_store(&d->alarm.set, true);
	return copied_requests(d->state) == copied ? wait : 0;
}

/* False: the device is to be left to a successor. */
static bool serve(struct device *d)
{
	struct pollfd fds[] = {
		{ .fd = d->signal_fd, .events = POLLIN },
		{ .fd = d->done_fd, .events = POLLIN },
		{ .fd = d->listener.epoll, .events = POLLIN },
		{ .fd = ctrl_fd(&d->ctrl), .events = POLLIN },
		{ .fd = d->vault->fd, .events = POLLIN },
		{ .fd = d->registry.alarm ? d->alarm.fd : -1, .events = POLLIN },
	};
	uint64_t rings;
	int wait = 0;

	while (!fds[0].revents && !fds[1].revents && !d->stop_asked) {
		if (poll(fds, 6, ctrl_has_early(&d->ctrl) ? 0 : wait) < 0 && errno != EINTR) {
			log_error(-errno, "poll");
			return false;
		}
		FAULT_POINT("serving");
		device_collect(d);
		device_recalled(d);
		listener_run(&d->listener);
		if (fds[5].revents && read(d->alarm.fd, &rings, sizeof(rings)) < 0)
			log_line(LOG_ERROR, "eventfd: errno %d", errno);
		note_rescues(d);
		wait = tick_buffers(d);
		show_gauges(d);
		if (fds[4].revents)
			handover_hear(d);
		handover_go_on(d);
		fds[4].fd = d->vault->fd;
	}
	return d->stop_asked || fds[0].revents || !fds[1].revents || is_stopped(d);
}

void device_stop(void *host)
{
	struct device *d = host;

	d->stop_asked = true;
}

/* ---- taking down ---- */

static void take_down(struct device *d)
{
	int ret;

	/* The buffers go with the device. */
	d->buffers.paused = true;
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
	if (d->char_fd >= 0)
		close(d->char_fd);
	if (d->added) {
		ret = ctrl_del_dev(&d->ctrl, d->info.dev_id);
		if (ret < 0 && ret != -ENODEV)
			log_error(ret, "delete device %u", d->info.dev_id);
	}
	device_collect(d);
	buffers_close(&d->buffers);
	if (d->registry.alarm)
		close(d->alarm.fd);
	if (d->locked)
		state_remove(d->info.dev_id);
	ctrl_close(&d->ctrl);
	/* Until it has closed, threads of the engine may end requests of the queues. */
	device_close_target(d);
	for (unsigned int i = 0; i < d->nr_started; i++)
		queue_free(&d->queues[i]);
	free(d->queues);
	if (d->done_fd >= 0)
		close(d->done_fd);
	if (d->signal_fd >= 0)
		close(d->signal_fd);
}

static struct device *new_device(const struct options *options, struct vault *vault)
{
	struct device *d = calloc(1, sizeof(*d));

	if (!d) {
		log_error(-ENOMEM, "start");
		return NULL;
	}
	d->options = options;
	d->vault = vault;
	d->ctrl = CTRL_CLOSED;
	d->char_fd = d->signal_fd = d->done_fd = -1;
	d->backing_fd = d->socket_fd = d->legacy_fd = -1;
	d->listener.epoll = d->listener.socket = d->listener.legacy = -1;
	return d;
}

static void serve_and_take_down(struct device *d, void (*ready)(unsigned int device, void *arg),
				void *arg)
{
	show_gauges(d);
	ready(d->info.dev_id, arg);
	vault_ready(d->vault, d->info.dev_id);
	privileges_filter_calls();
	if (!serve(d))
		_exit(EXIT_FAILURE);
	take_down(d);
	free(d);
}

int device_serve(const struct options *options, struct vault *vault,
		 void (*ready)(unsigned int device, void *arg), void *arg)
{
	struct device *d = new_device(options, vault);
	int ret = d ? set_up(d) : -ENOMEM;

	if (!ret) {
		serve_and_take_down(d, ready, arg);
	} else if (d) {
		take_down(d);
		free(d);
	}
	return ret;
}

int device_recover(const struct options *options, struct vault *vault, int number,
		   void (*ready)(unsigned int device, void *arg), void *arg)
{
	struct device *d = new_device(options, vault);
	int ret;

	if (!d)
		return -ENOMEM;
	ret = number < 0 ? device_inherit(d) : device_adopt(d, (unsigned int)number);
	/* On an error the process ends, which leaves the device as it was. */
	if (!ret)
		serve_and_take_down(d, ready, arg);
	return ret;
}
