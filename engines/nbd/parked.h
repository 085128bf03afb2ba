/* SPDX-License-Identifier: MIT */
/*
 * parked.h - sockets that outlive the server which connected them.
 *
 * A successor must know when what a dead server had asked is over (connection_await_end()), so
 * it needs the dead one's sockets.  It gets one descriptor, target->fd: a datagram socket that
 * is connected to itself, with the others in a message that nobody has received.
 */
#ifndef UBLKZC_NBD_PARKED_H
#define UBLKZC_NBD_PARKED_H

struct parked {
	int fd;			  /* -1: none */
	unsigned int nr_messages; /* that hold what was set last */
};

/* @fd is target->fd: what a dead server left, or -1 for a new one.  0 or -errno. */
int parked_open(struct parked *p, int fd);

/*
 * What a dead server has left: a malloc()ed list of descriptors that are the caller's, and how
 * many; or -errno.  They also stay parked until parked_set(), in case this server dies too.
 */
int parked_inherit(struct parked *p, int **ret);

/* These @nr descriptors, which stay the caller's, and none that were there before.  0 or -errno. */
int parked_set(struct parked *p, const int *fds, unsigned int nr);

#endif
