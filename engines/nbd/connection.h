/* SPDX-License-Identifier: MIT */
/*
 * connection.h - connect to an NBD server, and take leave of one so that nothing comes late.
 *
 * What is here waits: for the control thread and the connector.
 */
#ifndef UBLKZC_NBD_CONNECTION_H
#define UBLKZC_NBD_CONNECTION_H

#include <libnbd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a server says of an export. */
struct export
{
	uint64_t size;
	uint32_t minimum;   /* bytes that offsets and lengths are multiples of; at least 1 */
	uint32_t preferred; /* bytes; 0: it does not say */
	uint32_t maximum;   /* bytes of the largest request */
	bool read_only, rotational;
	bool flush, fua, trim, zero;
	bool multi_conn; /* connections see what each other has written, and flush it */
};

struct connection {
	struct nbd_handle *handle;
	int watch; /* its socket once more */
	struct export export;
};

/*
 * 0; or a negative errno, and why in words; -ECANCELED when @stop_fd (or -1) can be read.  Takes up
 * to CONNECT_SECONDS, and what looking up the name takes.
 */
#define CONNECT_SECONDS 15
int connection_make(const char *uri, int stop_fd, struct connection *ret, char *why, size_t size);

/* Say good-bye and close the handle.  There are no requests under way.  Does not wait. */
void connection_take_leave(struct nbd_handle *h);

/* And the socket. */
void connection_end(struct connection *c);

/*
 * Nothing that was asked on @fd, the socket of a connection without a handle, can reach the
 * storage any more: what is answered has been waited for, and then for the server to close its
 * end, up to about @seconds.
 *
 * ENDED_BY_SERVER: it had closed before us, so that it may have died.  ENDED: after us.
 * NOT_ENDED: not yet; ask again (*@half_closed says how far it got), or @stop_fd can be read.
 */
enum end { ENDED, ENDED_BY_SERVER, NOT_ENDED };
enum end connection_await_end(int fd, bool *half_closed, unsigned int seconds, int stop_fd);

#endif
