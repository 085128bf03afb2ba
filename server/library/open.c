/* SPDX-License-Identifier: MIT */
/* open.c - ublkzc_server_open(): what the server says it wants, and what it gets for it. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>

#include "common/wire.h"
#include "server/memory/guard.h"
#include "server_internal.h"

#define KNOWN_FLAGS (UBLKZC_SERVER_ONLY_SYSTEM_CALLS | UBLKZC_SERVER_TAKES_OVER)

#define MAX_CLIENTS 4096U
#define MAX_BUFFERS 256U
#define LINGER_MS 2000 /* for which small memory stays registered when nobody wants it */

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
		.backend = { .arg = s,
			     .reg = server_reg,
			     .unreg = server_unreg,
			     .list = s->lists ? server_list : NULL },
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
	if (s->waits)
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
	server_ask_to_log();
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->options = o;
	s->ctrl = CTRL_CLOSED;
	s->epoll = s->timer = s->alarm.fd = -1;
	s->listener.epoll = s->listener.socket = s->listener.legacy = -1;
	if ((err = server_open_driver(s)) || (err = open_sessions(s)) || (err = open_events(s)) ||
	    (err = ublkzc_server_dispatch(s))) {
		ublkzc_server_stop(s);
		ublkzc_server_close(s);
		return err;
	}
	*ret = s;
	return 0;
}
