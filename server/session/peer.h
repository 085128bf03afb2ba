/* SPDX-License-Identifier: MIT */
/* peer.h - the process at the other end of a unix socket. */
#ifndef UBLKZC_SERVER_PEER_H
#define UBLKZC_SERVER_PEER_H

/*
 * A pidfd of the process that connected or, for a client, of the one that listens; not of
 * whoever has its number now.  -ESRCH: it has ended.
 */
int peer_pidfd(int sock);

#endif
