/* SPDX-License-Identifier: MIT */
/* talk.c - see talk.h. */
#include "talk.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "common/log.h"
#include "sys.h"

#define QUEUE_LOOK_US 1000 /* between looks whether there is room in the server's queue */

int talk_connect(const char *dir, unsigned int device, int type, long long deadline)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	long fd;
	long ret;

	log_format(addr.sun_path, sizeof(addr.sun_path), WIRE_SOCKET_FORMAT, dir, device);
	fd = sys_call(SYS_socket, AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, 0, 0, 0);
	if (fd < 0)
		return (int)fd;
	/* There is nothing to poll for: a full queue is no event of this socket's. */
	while ((ret = sys_call(SYS_connect, fd, (long)&addr, sizeof(addr), 0, 0, 0)) == -EAGAIN &&
	       sys_now_ms() < deadline)
		sys_sleep_us(QUEUE_LOOK_US);
	if (ret < 0) {
		sys_close((int)fd);
		return (int)ret;
	}
	return sys_move_fd_high((int)fd);
}

/* A reply before @deadline (ms).  0, -ETIMEDOUT, or the connection's end. */
int talk_read_reply(int fd, long long deadline, struct wire_reply *ret)
{
	char buf[sizeof(*ret) + 1];
	int fds[WIRE_FDS_MAX];
	unsigned int nr_fds;
	long len;

	for (;;) {
		long long left = deadline - sys_now_ms();

		len = wire_recv(fd, buf, sizeof(buf), fds, &nr_fds);
		if (len != -EAGAIN && len != -EINTR)
			break;
		if (left <= 0)
			return -ETIMEDOUT;
		sys_poll_in(fd, (int)left);
	}
	if (nr_fds == 1)
		sys_close(fds[0]); /* a server has none to give */
	if (len <= 0)
		return len ? (int)len : -EPIPE;
	return wire_reply_decode(buf, (size_t)len, ret);
}
