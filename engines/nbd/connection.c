/* SPDX-License-Identifier: MIT */
/*
 * connection.c - see connection.h.
 *
 * Simple replies only.  A structured read may come in pieces, with holes that libnbd would
 * fill, touching the client's memory; and libnbd does not see to it that the pieces are the whole,
 * so that with nbd_set_pread_initialize(false) a server could leave bytes of a buffer as they were
 * and the read would succeed.  A simple reply is a header and all the bytes, which also costs half
 * the system calls.
 */
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define UNKNOWN_MAXIMUM (32U << 20) /* bytes: what every server takes that does not say */
#define QUIET_MS 1000		    /* without an answer: there is none under way */
/*
 * Seconds after which a machine that has vanished is given up.  Not less: a server that does not
 * read for so long is cut off too, and would go on with what it has when it wakes.
 */
#define VANISHED_SECONDS 60

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* 1: @fd has @events; 0: not until @deadline; -ECANCELED: @stop_fd can be read. */
static int wait_for(int fd, short events, int stop_fd, long long deadline)
{
	struct pollfd fds[2] = { { fd, events, 0 }, { stop_fd, POLLIN, 0 } };
	long long left;

	do {
		left = deadline - now_ms();
		if (poll(fds, 2, left > 0 ? (int)left : 0) < 0 && errno != EINTR)
			return -errno;
		if (fds[1].revents)
			return -ECANCELED;
		if (fds[0].revents)
			return 1;
	} while (left > 0);
	return 0;
}

/* ---- connect ---- */

static int failed(char *why, size_t size)
{
	int err = nbd_get_errno();

	snprintf(why, size, "%s", nbd_get_error());
	return err ? -err : -EIO;
}

/*
 * A server that is gone without a word is noticed; and whatever this process had not sent
 * yet when it dies, is not sent later.
 */
static void set_socket(int fd)
{
	struct linger none = { .l_onoff = 1, .l_linger = 0 };
	int on = 1, idle = VANISHED_SECONDS / 2, interval = VANISHED_SECONDS / 12, count = 6;
	unsigned int timeout = VANISHED_SECONDS * 1000U;

	/* What the family of the socket does not have, it does not need. */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

static int shake_hands(struct nbd_handle *h, int stop_fd, long long deadline, char *why,
		       size_t size)
{
	while (!nbd_aio_is_ready(h)) {
		unsigned int direction = nbd_aio_get_direction(h);
		short events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				       (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
		int ret;

		if (nbd_aio_is_dead(h) || nbd_aio_is_closed(h))
			return failed(why, size);
		ret = wait_for(nbd_aio_get_fd(h), events, stop_fd, deadline);
		if (ret <= 0) {
			snprintf(why, size, "the server says nothing for %d seconds",
				 CONNECT_SECONDS);
			return ret ? ret : -ETIMEDOUT;
		}
		ret = direction & LIBNBD_AIO_DIRECTION_READ ? nbd_aio_notify_read(h)
							    : nbd_aio_notify_write(h);
		if (ret < 0)
			return failed(why, size);
	}
	return 0;
}

/* ---- what it offers ---- */

static uint32_t block_size(struct nbd_handle *h, int which, uint32_t unknown)
{
	int64_t n = nbd_get_block_size(h, which);

	return n > 0 ? (uint32_t)(n < UINT32_MAX ? n : UINT32_MAX) : unknown;
}

static int learn(struct nbd_handle *h, struct export *ret, char *why, size_t size)
{
	int64_t bytes = nbd_get_size(h);

	if (bytes < 0)
		return failed(why, size);
	*ret = (struct export){
		.size = (uint64_t)bytes,
		.minimum = block_size(h, LIBNBD_SIZE_MINIMUM, 1),
		.preferred = block_size(h, LIBNBD_SIZE_PREFERRED, 0),
		.maximum = block_size(h, LIBNBD_SIZE_MAXIMUM, UNKNOWN_MAXIMUM),
		.read_only = nbd_is_read_only(h) == 1,
		.rotational = nbd_is_rotational(h) == 1,
		.flush = nbd_can_flush(h) == 1,
		.fua = nbd_can_fua(h) == 1,
		.trim = nbd_can_trim(h) == 1,
		.zero = nbd_can_zero(h) == 1,
		.multi_conn = nbd_can_multi_conn(h) == 1,
	};
	return 0;
}

static int set_up(struct nbd_handle *h, const char *uri, int stop_fd, char *why, size_t size)
{
	long long deadline = now_ms() + CONNECT_SECONDS * 1000LL;

	/* The URI is the administrator's own: it may name files. */
	if (nbd_set_pread_initialize(h, false) < 0 ||
	    nbd_set_request_structured_replies(h, false) < 0 ||
	    nbd_set_uri_allow_local_file(h, true) < 0 || nbd_aio_connect_uri(h, uri) < 0)
		return failed(why, size);
	return shake_hands(h, stop_fd, deadline, why, size);
}

int connection_make(const char *uri, int stop_fd, struct connection *ret, char *why, size_t size)
{
	struct nbd_handle *h = nbd_create();
	int err;

	if (!h)
		return failed(why, size);
	err = set_up(h, uri, stop_fd, why, size);
	if (!err)
		err = learn(h, &ret->export, why, size);
	if (!err) {
		set_socket(nbd_aio_get_fd(h));
		ret->watch = fcntl(nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 0);
		err = ret->watch < 0 ? -errno : 0;
		if (err)
			snprintf(why, size, "%s", strerror(-err));
	}
	if (err)
		nbd_close(h);
	else
		ret->handle = h;
	return err;
}

void connection_take_leave(struct nbd_handle *h)
{
	struct linger kernels = { 0 };

	/* The good-bye is to arrive. */
	setsockopt(nbd_aio_get_fd(h), SOL_SOCKET, SO_LINGER, &kernels, sizeof(kernels));
	nbd_aio_disconnect(h, 0);
	nbd_close(h);
}

void connection_end(struct connection *c)
{
	connection_take_leave(c->handle);
	/* Others may have it too: a ring that polls it. */
	shutdown(c->watch, SHUT_RDWR);
	close(c->watch);
}

/* ---- and its end ---- */

/* Read and forget.  1: it has ended; 0: nothing more comes until @deadline; or -ECANCELED. */
static int drain(int fd, int stop_fd, long long deadline, int quiet_ms)
{
	char buf[16384];

	for (;;) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		long long quiet = now_ms() + quiet_ms;
		int ret;

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return 1;
		if (n > 0)
			continue;
		ret = wait_for(fd, POLLIN, stop_fd, quiet < deadline ? quiet : deadline);
		if (ret <= 0)
			return ret;
	}
}

/*
 * First what is under way is answered: qemu-nbd closes its end at once when we close ours, and
 * goes on with what it was asked.
 */
enum end connection_await_end(int fd, bool *half_closed, unsigned int seconds, int stop_fd)
{
	long long deadline = now_ms() + seconds * 1000LL;
	int ret;

	if (!*half_closed) {
		ret = drain(fd, stop_fd, deadline + QUIET_MS, QUIET_MS);
		if (ret)
			return ret > 0 ? ENDED_BY_SERVER : NOT_ENDED;
		shutdown(fd, SHUT_WR);
		*half_closed = true;
	}
	ret = drain(fd, stop_fd, deadline, (int)(seconds * 1000));
	if (ret <= 0)
		return NOT_ENDED;
	/* Others may have it too: a ring that polls it. */
	shutdown(fd, SHUT_RDWR);
	return ENDED;
}
