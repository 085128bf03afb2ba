/* SPDX-License-Identifier: MIT */
/*
 * admin.h - a verb asks a running server: root's requests of common/wire.h.
 *
 * The server is whoever listens at the device's socket, in whatever pid namespace; no
 * process is ever found by a number in a file.
 */
#ifndef UBLKZC_SERVER_ADMIN_H
#define UBLKZC_SERVER_ADMIN_H

#include "common/wire.h"

#define ADMIN_WAIT_FOR_EVER (-1)
#define ADMIN_CONNECT_S 10 /* while as many wait as the kernel lets: 4096 */

/*
 * A connection to the server of @device, or a negative errno that was not logged:
 * -ECONNREFUSED and -ENOENT, nobody serves it; -ETIMEDOUT, it takes none.
 */
int admin_connect(unsigned int device);

/*
 * Ask over it and wait at most @ms for the answer.  0 when there is one, be it a refusal;
 * else a negative errno that was not logged: -ETIMEDOUT, or -EPIPE when the server hung up.
 */
int admin_ask_on(int fd, const struct wire_request *req, int ms, struct wire_reply *ret);

/* Kill the server at the other end of @fd, and nobody else.  0 or a negative errno. */
int admin_kill_server(int fd);

/* Connect, ask, and wait as long as it takes.  Errors are logged. */
int admin_ask(unsigned int device, const struct wire_request *req, struct wire_reply *ret);

#endif
