/* SPDX-License-Identifier: MIT */
/* admin.c - see admin.h. */
#include "admin.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "server/session/peer.h"

int admin_connect(unsigned int device)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = ADMIN_CONNECT_S };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	/* A server that hangs takes no connections, and others may wait for that already. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	snprintf(addr.sun_path, sizeof(addr.sun_path), WIRE_SOCKET_FORMAT, WIRE_DIR, device);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return err;
}

int admin_ask_on(int fd, const struct wire_request *req, int ms, struct wire_reply *ret)
{
	struct pollfd answer = { .fd = fd, .events = POLLIN };
	char buf[sizeof(*ret) + 1];
	int fds[WIRE_FDS_MAX];
	unsigned int nr_fds;
	long len;
	int err;

	err = wire_send(fd, req, sizeof(*req), -1);
	if (err)
		return err;
	if (poll(&answer, 1, ms) == 0)
		return -ETIMEDOUT;
	len = wire_recv(fd, buf, sizeof(buf), fds, &nr_fds);
	if (len <= 0)
		return len && len != -ECONNRESET ? (int)len : -EPIPE;
	return wire_reply_decode(buf, (size_t)len, ret);
}

int admin_kill_server(int fd)
{
	int pidfd = peer_pidfd(fd);
	int ret = 0;

	if (pidfd < 0)
		return pidfd;
	if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0)
		ret = -errno;
	close(pidfd);
	return ret;
}

int admin_ask(unsigned int device, const struct wire_request *req, struct wire_reply *ret)
{
	int fd = admin_connect(device);
	int err;

	if (fd == -ETIMEDOUT)
		return log_error(fd, "/dev/ublkb%u: its server takes no connections", device);
	if (fd < 0)
		return log_error(fd,
				 "/dev/ublkb%u: no server listens at " WIRE_DIR
				 "/ublkb%u.sock (ublkzc list)",
				 device, device);
	err = admin_ask_on(fd, req, ADMIN_WAIT_FOR_EVER, ret);
	close(fd);
	if (err)
		log_error(err, "/dev/ublkb%u: its server did not answer", device);
	return err;
}
