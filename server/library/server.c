/* SPDX-License-Identifier: MIT */
/*
 * server.c - what <ublkzc/server.h> declares, of a server that is open.
 *
 * Everything is one epoll set: the listener's own, the ring of control commands, a timer for when
 * nothing happens, and the bell that copied() rings. Each dispatch() looks at all of them; that
 * is cheap, and which of them woke it does not matter.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "server/life/worker.h"
#include "server_internal.h"

#define LONGEST_WAIT_MS 1000
#define CLOSE_WAIT_MS 2000 /* for the driver's last answers */

/* ---- the log ---- */

static int log_to = -1;

static int may_log(int fd)
{
	(void)fd;
	return log_to >= 0;
}

void server_ask_to_log(void)
{
	log_ask(may_log);
}

void ublkzc_server_log(int fd, int level)
{
	log_to = level < 0 ? -1 : fd;
	log_set_fd(fd);
	log_init("libublkzc-server", level < 0 ? LOG_ERROR : (enum log_level)level);
	server_ask_to_log();
}

/* ---- serving ---- */

int server_wake_in(const struct ublkzc_server *s, int ms)
{
	long ns = ms > 0 ? ms % 1000 * 1000000L : 1;
	struct itimerspec when = { .it_value = { .tv_sec = ms / 1000, .tv_nsec = ns } };

	return timerfd_settime(s->timer, 0, &when, NULL) < 0 ? -errno : 0;
}

int ublkzc_server_fd(const struct ublkzc_server *s)
{
	return s->epoll;
}

static void drain(int fd)
{
	uint64_t nr;

	if (read(fd, &nr, sizeof(nr)) < 0)
		return; /* it was another descriptor */
}

static void show_gauges(struct ublkzc_server *s)
{
	s->clients = s->listener.nr_clients;
	s->nr_buffers = s->buffers.nr;
	s->bytes = s->buffers.bytes;
	s->refused = s->listener.refused;
}

/* Ask to be woken by the next copy when memory would be looked at for it. */
static int tick(struct ublkzc_server *s)
{
	uint64_t copied = s->copied;
	int wait = buffers_tick(&s->buffers, copied);

	if (s->buffers.waits) {
		atomic_store(&s->alarm.set, true);
		if (s->copied != copied)
			wait = 0;
	}
	return wait < LONGEST_WAIT_MS ? wait : LONGEST_WAIT_MS;
}

int ublkzc_server_dispatch(struct ublkzc_server *s)
{
	int wait = LONGEST_WAIT_MS;

	drain(s->timer);
	drain(s->alarm.fd);
	server_collect(s);
	if (!s->stopped) {
		listener_run(&s->listener);
		wait = tick(s);
	}
	show_gauges(s);
	return server_wake_in(s, ctrl_has_early(&s->ctrl) ? 0 : wait);
}

void *ublkzc_server_find(const struct ublkzc_server *s, uint64_t addr, uint32_t len,
			 enum ublkzc_server_direction direction)
{
	return registry_find(&s->registry, addr, len, direction == UBLKZC_SERVER_INTO);
}

void ublkzc_server_copied(struct ublkzc_server *s)
{
	atomic_fetch_add_explicit(&s->copied, 1, memory_order_relaxed);
	registry_missed(&s->registry);
}

void ublkzc_server_stats(const struct ublkzc_server *s, struct ublkzc_server_stats *ret,
			 size_t size)
{
	struct ublkzc_server_stats now = {
		.clients = s->clients,
		.buffers = s->nr_buffers,
		.bytes = s->bytes,
		.refused = s->refused,
		.copied = s->copied,
	};

	memset(ret, 0, size);
	memcpy(ret, &now, size < sizeof(now) ? size : sizeof(now));
}

/* ---- the end ---- */

void ublkzc_server_stop(struct ublkzc_server *s)
{
	char path[256];

	if (s->stopped)
		return;
	s->stopped = true;
	s->buffers.paused = true;
	if (s->listener.socket >= 0) {
		snprintf(path, sizeof(path), WIRE_SOCKET_FORMAT, s->options.socket_dir,
			 s->options.device);
		unlink(path);
	}
	if (s->listener.epoll >= 0)
		listener_close(&s->listener);
}

/* Nothing of ours may be asked of the driver when its memory goes. */
static bool driver_is_done(struct ublkzc_server *s)
{
	for (int ms = 0; ms < CLOSE_WAIT_MS; ms += 10) {
		struct pollfd ring = { .fd = s->ctrl.fd < 0 ? -1 : ctrl_fd(&s->ctrl),
				       .events = POLLIN };

		server_collect(s);
		if (buffers_idle(&s->buffers))
			return true;
		poll(&ring, 1, 10);
	}
	log_line(LOG_ERROR, "the driver has not answered: memory of device %u is not given back",
		 s->options.device);
	return false;
}

static void close_unless_none(int fd)
{
	if (fd >= 0)
		close(fd);
}

void ublkzc_server_close(struct ublkzc_server *s)
{
	if (!s)
		return;
	ublkzc_server_stop(s);
	if (s->buffers.registry && !driver_is_done(s))
		return;
	if (s->buffers.registry)
		buffers_close(&s->buffers);
	worker_wait();
	ctrl_close(&s->ctrl);
	close_unless_none(s->epoll);
	close_unless_none(s->timer);
	close_unless_none(s->alarm.fd);
	free(s);
}
