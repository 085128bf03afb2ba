/* SPDX-License-Identifier: MIT */
/*
 * legacy.c - see legacy.h.
 *
 * A connection that is given up before its answer has come is parked: its own
 * end is sent through it, behind the buffer.  The server, which reads one message
 * a connection, never takes it out; so the end stays open, in the kernel,
 * until the server closes its own, even if this process is gone by then.
 */
#include "legacy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "common/log.h"
#include "common/wire.h"
#include "config.h"
#include "sys.h"
#include "talk.h"

/* How long who exits waits for another thread that is just sending: ms. */
#define LEAVE_MS 200

static atomic_int waiting = -1; /* the connection whose answer is to come */
static atomic_bool sending;	/* there may be one any moment */

bool legacy_there(unsigned int device)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct stat st;

	log_format(path, sizeof(path), WIRE_SOCKET_FORMAT, config.legacy_dir, device);
	return sys_call(SYS_newfstatat, AT_FDCWD, (long)path, (long)&st, 0, 0, 0) == 0 &&
	       S_ISSOCK(st.st_mode);
}

static int read_answer(int fd, long long deadline, int32_t *ret)
{
	char *at = (char *)ret;
	size_t have = 0;

	while (have < sizeof(*ret)) {
		long long left = deadline - sys_now_ms();
		long len = sys_call(SYS_recvfrom, fd, (long)(at + have),
				    (long)(sizeof(*ret) - have), 0, 0, 0);

		if (len > 0)
			have += (size_t)len;
		else if (len != -EAGAIN && len != -EINTR)
			return -EPIPE; /* it hung up */
		else if (left <= 0)
			return -ETIMEDOUT;
		else
			sys_poll_in(fd, (int)left);
	}
	return 0;
}

/* Refused only without memory: then the descriptor stays open in this process. */
static bool park(int fd)
{
	return wire_send(fd, "", 1, fd) == 0;
}

int legacy_offer(unsigned int device, int memfd, long long deadline, int32_t *ret_index)
{
	int fd = talk_connect(config.legacy_dir, device, SOCK_STREAM, deadline);
	int ret;

	if (fd < 0)
		return fd;
	sending = true;
	ret = wire_send(fd, "", 1, memfd);
	waiting = ret ? -1 : fd;
	sending = false;
	if (!ret)
		ret = read_answer(fd, deadline, ret_index);
	waiting = -1;
	if (ret != -ETIMEDOUT || park(fd))
		sys_close(fd);
	return ret;
}

void legacy_leave(void)
{
	int fd;

	for (int ms = 0; ms < LEAVE_MS && sending; ms++)
		sys_sleep_us(1000);
	fd = atomic_exchange(&waiting, -1);
	if (fd >= 0)
		park(fd);
}
