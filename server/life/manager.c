/* SPDX-License-Identifier: MIT */
/* manager.c - see manager.h. */
#include "manager.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

#define FIRST_FD (STDERR_FILENO + 1) /* SD_LISTEN_FDS_START */

/* 0: there is no manager. */
static socklen_t address(struct sockaddr_un *ret)
{
	const char *path = secure_getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;

	if (len < 2 || len >= sizeof(ret->sun_path) || (path[0] != '/' && path[0] != '@'))
		return 0;
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, path, len);
	if (path[0] == '@')
		ret->sun_path[0] = '\0';
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

bool manager_listens(void)
{
	struct sockaddr_un addr;

	return address(&addr) != 0;
}

/* One datagram, with @fd unless that is -1; -EDESTADDRREQ: there is no manager. */
static int tell(const char *text, int fd, int flags)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(fd))];
	} control = { .header = { .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS,
				  .cmsg_len = CMSG_LEN(sizeof(fd)) } };
	struct sockaddr_un addr;
	struct iovec iov = { .iov_base = (void *)text, .iov_len = strlen(text) };
	struct msghdr msg = {
		.msg_name = &addr,
		.msg_namelen = address(&addr),
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	int ret = 0;
	int sock;

	if (!msg.msg_namelen)
		return -EDESTADDRREQ;
	if (fd >= 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	if (sendmsg(sock, &msg, MSG_NOSIGNAL | flags) < 0)
		ret = -errno;
	close(sock);
	return ret;
}

void manager_tell(const char *text)
{
	int ret = tell(text, -1, 0);

	if (ret && ret != -EDESTADDRREQ)
		log_line(LOG_WARN, "the service manager cannot be told: errno %d", -ret);
}

int manager_keep(const char *name, int fd)
{
	char text[64];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	return tell(text, fd, MSG_DONTWAIT);
}

int manager_forget(const char *name)
{
	char text[64];

	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return tell(text, -1, MSG_DONTWAIT);
}

/* It closes what comes with BARRIER=1 when it gets there. */
void manager_wait(int ms)
{
	struct pollfd p = { .events = 0 };
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return;
	p.fd = fds[0];
	if (tell("BARRIER=1", fds[1], 0) == 0) {
		close(fds[1]);
		poll(&p, 1, ms);
	} else {
		close(fds[1]);
	}
	close(fds[0]);
}

/* A number of the environment; 0: none, or none that can be. */
static unsigned int number(const char *name)
{
	const char *text = secure_getenv(name);
	char *end;
	unsigned long n;

	if (!text)
		return 0;
	errno = 0;
	n = strtoul(text, &end, 10);
	return errno || *end || n > INT_MAX ? 0 : (unsigned int)n;
}

/* What there are no names for is called "", which nobody has left. */
static void name_all(struct manager_fd *fds, unsigned int nr, const char *names)
{
	for (unsigned int i = 0; i < nr; i++) {
		int len = (int)strcspn(names, ":");

		fds[i].fd = FIRST_FD + (int)i;
		fcntl(fds[i].fd, F_SETFD, FD_CLOEXEC);
		snprintf(fds[i].name, sizeof(fds[i].name), "%.*s", len, names);
		names += len;
		names += *names == ':';
	}
}

struct manager_fd *manager_take(unsigned int *ret_nr)
{
	const char *names = secure_getenv("LISTEN_FDNAMES");
	unsigned int nr = number("LISTEN_FDS");
	struct manager_fd *fds = NULL;

	*ret_nr = 0;
	if (nr && number("LISTEN_PID") == (unsigned int)getpid())
		fds = calloc(nr, sizeof(*fds));
	if (fds) {
		name_all(fds, nr, names ? names : "");
		*ret_nr = nr;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return fds;
}
