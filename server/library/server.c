/* SPDX-License-Identifier: MIT */
/*
 * server.c - what <ublkzc/server.h> declares.
 *
 * Everything is one epoll set: the listener's own, the ring of control commands, a timer for when
 * nothing happens, and the bell that copied() rings. Each dispatch() looks at all of them; that
 * is cheap, and which of them woke it does not matter.
 */
#include "ublkzc/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "server/device/ctrl.h"
#include "server/life/worker.h"
#include "server/memory/guard.h"
#include "server/session/listener.h"
#include "stale.h"

#define KNOWN_FLAGS (UBLKZC_SERVER_ONLY_SYSTEM_CALLS | UBLKZC_SERVER_TAKES_OVER)

#define MAX_CLIENTS 4096U
#define MAX_BUFFERS 256U
#define LINGER_MS 2000 /* for which small memory stays registered when nobody wants it */
#define LONGEST_WAIT_MS 1000
#define CLOSE_WAIT_MS 2000 /* for the driver's last answers */

struct ublkzc_server {
	struct ublkzc_server_options options;
	struct ctrl ctrl; /* fd -1: the server sends the commands */
	struct registry registry;
	struct registry_alarm alarm;
	struct buffers buffers;
	struct listener listener;
	struct stale *stale; /* NULL: there is none, or no more */
	int epoll;
	int timer;
	bool lists; /* the driver says what it has */
	bool waits; /* for the device to be live: ublkzc_server_live() */
	bool stopped;
	/* For any thread: */
	_Atomic(uint64_t) copied;
	_Atomic(uint64_t) clients, nr_buffers, bytes, refused;
};

_Static_assert(sizeof(struct ublkzc_server_buffer) == sizeof(struct uapi_shmem_buf_reg), "ABI");
_Static_assert(offsetof(struct ublkzc_server_buffer, flags) ==
		       offsetof(struct uapi_shmem_buf_reg, flags),
	       "ABI");
_Static_assert(UBLKZC_SERVER_F_SHMEM_ZC == UBLK_F_SHMEM_ZC, "ABI");
_Static_assert(UBLKZC_SERVER_IO_MATCHED == UAPI_IO_F_SHMEM_ZC, "ABI");

/* ---- the log ---- */

static int log_to = -1;

static int may_log(int fd)
{
	(void)fd;
	return log_to >= 0;
}

void ublkzc_server_log(int fd, int level)
{
	log_to = level < 0 ? -1 : fd;
	log_set_fd(fd);
	log_init("libublkzc-server", level < 0 ? LOG_ERROR : (enum log_level)level);
	log_ask(may_log);
}

/* ---- the driver below the buffers ---- */

static int backend_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	struct ublkzc_server *s = arg;

	if (s->options.reg)
		return s->options.reg(s->options.arg, (const struct ublkzc_server_buffer *)reg,
				      cookie);
	return ctrl_reg_buf(&s->ctrl, s->options.device, reg, cookie);
}

static int backend_unreg(void *arg, unsigned int index, void *cookie)
{
	struct ublkzc_server *s = arg;

	if (s->options.unreg)
		return s->options.unreg(s->options.arg, index, cookie);
	return ctrl_unreg_buf(&s->ctrl, s->options.device, index, cookie);
}

/* What cannot be asked for now counts as answered: it stays registered, and is copied. */
static void drop_stale(struct ublkzc_server *s)
{
	int index;

	while (s->stale && !s->waits && (index = stale_next(s->stale)) >= 0) {
		int ret = backend_unreg(s, (unsigned int)index, s->stale);

		if (ret)
			stale_answered(s->stale, ret);
	}
	if (!s->stale || s->waits || !stale_done(s->stale))
		return;
	if (s->stale->dropped)
		log_line(LOG_WARN, "%u buffers of a dead server are unregistered",
			 s->stale->dropped);
	free(s->stale);
	s->stale = NULL;
	if (!s->stopped)
		buffers_pause(&s->buffers, false);
}

static int wake_in(const struct ublkzc_server *s, int ms)
{
	long ns = ms > 0 ? ms % 1000 * 1000000L : 1;
	struct itimerspec when = { .it_value = { .tv_sec = ms / 1000, .tv_nsec = ns } };

	return timerfd_settime(s->timer, 0, &when, NULL) < 0 ? -errno : 0;
}

void ublkzc_server_answered(struct ublkzc_server *s, void *cookie, int result)
{
	if (s->stale && cookie == s->stale) {
		stale_answered(s->stale, result);
		/* For the next of them; not from here, which may be within unreg(). */
		wake_in(s, 0);
	} else {
		buffers_finished(&s->buffers, cookie, result);
	}
}

static void collect(struct ublkzc_server *s)
{
	void *cookie;
	int res;

	while (s->ctrl.fd >= 0 && ctrl_collect(&s->ctrl, &cookie, &res))
		ublkzc_server_answered(s, cookie, res);
	drop_stale(s);
}

/* ---- opening ---- */

/* What this library does not know must be zero, or it would be ignored unsaid. */
static int take_options(struct ublkzc_server_options *ret, const struct ublkzc_server_options *o)
{
	size_t known = o->size < sizeof(*ret) ? o->size : sizeof(*ret);

	if (o->size < offsetof(struct ublkzc_server_options, limits))
		return -EINVAL;
	for (size_t i = known; i < o->size; i++)
		if (((const char *)o)[i])
			return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, o, known);
	if ((ret->flags & ~KNOWN_FLAGS) || !ret->reg != !ret->unreg || ret->limits.reserved)
		return -EINVAL;
	if (!ret->socket_dir)
		ret->socket_dir = WIRE_DIR;
	return 0;
}

static int list_stale(struct ublkzc_server *s)
{
	struct uapi_shmem_buf_info infos[256];
	unsigned int next = 0;
	int nr;

	while (next <= UAPI_SHMEM_BUF_INDEX_MAX &&
	       (nr = ctrl_list_bufs(&s->ctrl, s->options.device, next, infos, 256)) != 0) {
		if (nr < 0)
			return nr;
		for (int i = 0; i < nr; i++)
			s->stale->indices[infos[i].index / 8] |=
				(uint8_t)(1U << (infos[i].index % 8));
		next = infos[nr - 1].index + 1;
	}
	s->stale->listed = true;
	return 0;
}

static int open_driver(struct ublkzc_server *s)
{
	struct ublksrv_ctrl_dev_info info = { 0 };
	int ret;

	if (s->options.flags & UBLKZC_SERVER_TAKES_OVER) {
		s->waits = true;
		s->stale = calloc(1, sizeof(*s->stale));
		if (!s->stale)
			return -ENOMEM;
	}
	if (s->options.reg)
		return 0;
	ret = ctrl_open(&s->ctrl);
	if (ret < 0)
		return ret;
	ctrl_add_worker(&s->ctrl);
	ret = ctrl_get_info(&s->ctrl, s->options.device, &info);
	if (ret < 0)
		return log_error(ret, "device %u", s->options.device);
	if (!(info.flags & UBLK_F_SHMEM_ZC))
		return log_error(-EOPNOTSUPP, "device %u was added without UBLK_F_SHMEM_ZC",
				 s->options.device);
	s->lists = (info.flags & UAPI_F_SHMEM_LIST) != 0;
	return 0;
}

void ublkzc_server_live(struct ublkzc_server *s)
{
	int ret = 0;

	if (!s->waits)
		return;
	s->waits = false;
	if (s->lists)
		ret = list_stale(s);
	if (ret) /* then they are looked for */
		log_error(ret, "device %u: what the driver has", s->options.device);
	drop_stale(s);
}

static uint64_t memory_quarters(uint64_t given, unsigned int quarters)
{
	struct sysinfo info;

	if (given)
		return given;
	return sysinfo(&info) < 0 ? quarters * (1ULL << 28)
				  : quarters * ((uint64_t)info.totalram * info.mem_unit / 4);
}

static unsigned int or_else(unsigned int given, unsigned int otherwise)
{
	return given ? given : otherwise;
}

/* Of the server's own; by default the rule of docs/wire.md. */
static int judge_proof(void *host, unsigned int device, int fd, enum wire_reason *ret_reason)
{
	struct ublkzc_server *s = host;
	int flags = fcntl(fd, F_GETFL);

	if (!s->options.may_use)
		return listener_judge_proof(host, device, fd, ret_reason);
	*ret_reason = WIRE_NO_ACCESS;
	if (flags < 0 || (flags & O_PATH))
		return -EACCES;
	return s->options.may_use(s->options.arg, fd);
}

static int open_sessions(struct ublkzc_server *s)
{
	const struct ublkzc_server_limits *given = &s->options.limits;
	unsigned int max_clients = or_else(given->max_clients, MAX_CLIENTS);
	bool only_calls = s->options.flags & UBLKZC_SERVER_ONLY_SYSTEM_CALLS;

	s->buffers = (struct buffers){
		.registry = &s->registry,
		.backend = { .arg = s, .reg = backend_reg, .unreg = backend_unreg },
		.answer = listener_answer,
		.answer_arg = &s->listener,
		.max_bytes = memory_quarters(given->max_bytes, 3),
		.linger = LINGER_MS,
		.touched = !only_calls,
		.one_at_a_time = true,
	};
	s->listener = (struct listener){
		.device = s->options.device,
		.limits = { .max_clients = max_clients,
			    .max_user_clients = or_else(given->max_user_clients,
							max_clients > 1 ? max_clients / 2 : 1),
			    .max_buffers = or_else(given->max_buffers, MAX_BUFFERS),
			    .max_client_bytes = memory_quarters(given->max_client_bytes, 2),
			    .max_user_bytes = memory_quarters(given->max_user_bytes, 2),
			    .hello_timeout = LISTENER_HELLO_TIMEOUT },
		.buffers = &s->buffers,
		.socket = -1,
		.legacy = -1,
		.sealed_only = !only_calls,
		.host = s,
		.judge_proof = judge_proof,
	};
	if (only_calls)
		guard_open();
	if (s->stale)
		buffers_pause(&s->buffers, true);
	return listener_open(&s->listener, s->options.socket_dir, NULL);
}

static int watch(const struct ublkzc_server *s, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int open_events(struct ublkzc_server *s)
{
	int ret = 0;

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	s->alarm.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->epoll < 0 || s->timer < 0 || s->alarm.fd < 0)
		return -errno;
	s->registry.alarm = &s->alarm;
	if ((ret = watch(s, s->timer)) || (ret = watch(s, s->alarm.fd)) ||
	    (ret = watch(s, s->listener.epoll)))
		return ret;
	return s->ctrl.fd < 0 ? 0 : watch(s, ctrl_fd(&s->ctrl));
}

int ublkzc_server_open(const struct ublkzc_server_options *options, struct ublkzc_server **ret)
{
	struct ublkzc_server_options o;
	struct ublkzc_server *s;
	int err = take_options(&o, options);

	*ret = NULL;
	if (err)
		return err;
	log_ask(may_log);
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->options = o;
	s->ctrl = CTRL_CLOSED;
	s->epoll = s->timer = s->alarm.fd = -1;
	s->listener.epoll = s->listener.socket = s->listener.legacy = -1;
	if ((err = open_driver(s)) || (err = open_sessions(s)) || (err = open_events(s)) ||
	    (err = ublkzc_server_dispatch(s))) {
		ublkzc_server_stop(s);
		ublkzc_server_close(s);
		return err;
	}
	*ret = s;
	return 0;
}

/* ---- serving ---- */

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
	collect(s);
	if (!s->stopped) {
		listener_run(&s->listener);
		wait = tick(s);
	}
	show_gauges(s);
	return wake_in(s, ctrl_has_early(&s->ctrl) ? 0 : wait);
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

		collect(s);
		if (buffers_idle(&s->buffers) && (!s->stale || !s->stale->asked))
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
	if (s->stale)
		s->stale->next = UAPI_SHMEM_BUF_INDEX_MAX + 1; /* no more of them */
	if (s->buffers.registry && !driver_is_done(s))
		return;
	if (s->buffers.registry)
		buffers_close(&s->buffers);
	worker_wait();
	ctrl_close(&s->ctrl);
	close_unless_none(s->epoll);
	close_unless_none(s->timer);
	close_unless_none(s->alarm.fd);
	free(s->stale);
	free(s);
}
