/* SPDX-License-Identifier: MIT */
/* admin.c - see admin.h. */
#include "admin.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

static int connect_server(unsigned int device)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), WIRE_SOCKET_FORMAT, WIRE_DIR, device);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int err = -errno;

		close(fd);
		return log_error(err, "/dev/ublkb%u: no server at %s (ublkzc list)", device,
				 addr.sun_path);
	}
	return fd;
}

static int ask_on(int fd, const struct wire_request *req, struct wire_reply *ret)
{
	char buf[sizeof(*ret) + 1];
	int fds[WIRE_FDS_MAX];
	unsigned int nr_fds;
	long len;
	int err;

	err = wire_send(fd, req, sizeof(*req), -1);
	if (err)
		return err;
	len = wire_recv(fd, buf, sizeof(buf), fds, &nr_fds);
	if (len <= 0)
		return len ? (int)len : -EPIPE;
	return wire_reply_decode(buf, (size_t)len, ret);
}

int admin_ask(unsigned int device, const struct wire_request *req, struct wire_reply *ret)
{
	int fd = connect_server(device);
	int err;

	if (fd < 0)
		return fd;
	err = ask_on(fd, req, ret);
	close(fd);
	if (err)
		log_error(err, "/dev/ublkb%u: its server did not answer", device);
	return err;
}
