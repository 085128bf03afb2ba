/* SPDX-License-Identifier: MIT */
/* parked.c - see parked.h. */
#include "parked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_OF_MESSAGE 200U /* the kernel takes 253 */

union control {
	char buf[CMSG_SPACE(FDS_OF_MESSAGE * sizeof(int))];
	struct cmsghdr align;
};

static int park_open(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(addr.sun_family); /* the kernel chooses a name */
	int park = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int err;

	if (park < 0)
		return -errno;
	if (bind(park, (struct sockaddr *)&addr, len) == 0) {
		len = sizeof(addr);
		if (getsockname(park, (struct sockaddr *)&addr, &len) == 0 &&
		    connect(park, (struct sockaddr *)&addr, len) == 0)
			return park;
	}
	err = -errno;
	close(park);
	return err;
}

static int send_some(int park, const int *fds, unsigned int nr)
{
	union control control = { 0 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&msg);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(header), fds, nr * sizeof(int));
	return sendmsg(park, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int parked_open(struct parked *p, int fd)
{
	*p = (struct parked){ .fd = fd >= 0 ? fd : park_open() };
	return p->fd < 0 ? p->fd : 0;
}

/* Of the next message: how many were added to @fds; 0: there is none. */
static int receive_some(int park, int **fds, unsigned int have)
{
	union control control = { 0 };
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	int *larger = realloc(*fds, (have + FDS_OF_MESSAGE) * sizeof(int));
	struct cmsghdr *header;
	size_t nr;

	if (!larger)
		return -ENOMEM;
	*fds = larger;
	if (recvmsg(park, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
		return errno == EAGAIN ? 0 : -errno;
	header = CMSG_FIRSTHDR(&msg);
	if (!header || header->cmsg_type != SCM_RIGHTS || msg.msg_flags & MSG_CTRUNC)
		return -EMFILE;
	nr = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(*fds + have, CMSG_DATA(header), nr * sizeof(int));
	return (int)nr;
}

static void close_all(int *fds, unsigned int nr)
{
	while (nr)
		close(fds[--nr]);
	free(fds);
}

/* 0 or -errno; the number of messages in @ret. */
static int send_all(int park, const int *fds, unsigned int nr, unsigned int *ret)
{
	int err = 0;

	*ret = 0;
	for (unsigned int at = 0; !err && at < nr; at += FDS_OF_MESSAGE, ++*ret)
		err = send_some(park, fds + at,
				nr - at < FDS_OF_MESSAGE ? nr - at : FDS_OF_MESSAGE);
	return err;
}

int parked_inherit(struct parked *p, int **ret)
{
	unsigned int have = 0;
	int nr;

	*ret = NULL;
	while ((nr = receive_some(p->fd, ret, have)) > 0)
		have += (unsigned int)nr;
	if (!nr)
		nr = send_all(p->fd, *ret, have, &p->nr_messages);
	if (!nr)
		return (int)have;
	close_all(*ret, have);
	*ret = NULL;
	return nr;
}

/*
 * The new ones go behind the old before these are taken out, so that there is no moment in which
 * a death would leave nothing.
 */
int parked_set(struct parked *p, const int *fds, unsigned int nr)
{
	unsigned int nr_old = p->nr_messages;
	int err = send_all(p->fd, fds, nr, &p->nr_messages);

	if (err)
		return err;
	for (; nr_old; nr_old--) {
		int *old = NULL;
		int have = receive_some(p->fd, &old, 0);

		close_all(old, have > 0 ? (unsigned int)have : 0);
	}
	return 0;
}
