/* SPDX-License-Identifier: MIT */
/* peer.c - see peer.h. */
#include "peer.h"

#include <errno.h>
#include <sys/socket.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* include/uapi/asm-generic/socket.h */
#endif

int peer_pidfd(int sock)
{
	int pidfd = -1;
	socklen_t len = sizeof(pidfd);

	/* Linux 6.5, as the driver's feature that every server needs. */
	return getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0 ? pidfd : -errno;
}
