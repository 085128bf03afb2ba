/* SPDX-License-Identifier: MIT */
/*
 * manager.h - the service manager, by sd_notify(3)'s protocol: datagrams to the socket that it
 * named in NOTIFY_SOCKET; and what it gives back at the next start, as sd_listen_fds(3) has it.
 *
 * It keeps descriptors by name.  It never answers, so whoever leaves one does not know whether
 * there was room; and it forgets by itself those that have hung up.
 */
#ifndef UBLKZC_SERVER_MANAGER_H
#define UBLKZC_SERVER_MANAGER_H

#include <stdbool.h>

#define MANAGER_NAME_MAX 24 /* bytes of a name, with its end */

bool manager_listens(void);

/* Waits until it is taken.  What goes wrong is logged. */
void manager_tell(const char *text);

/*
 * Keep @fd (borrowed) under @name; forget what is kept under it.  Neither waits: -EAGAIN when the
 * manager is behind, or another negative errno.
 */
int manager_keep(const char *name, int fd);
int manager_forget(const char *name);

/* Until it has done all that it was told so far; at most @ms. */
void manager_wait(int ms);

struct manager_fd {
	char name[MANAGER_NAME_MAX]; /* shortened, if it is longer */
	int fd;
};

/*
 * What it has kept, which is the caller's to free, with the descriptors: they are *ret_nr from 3
 * (STDERR_FILENO + 1) on.  It keeps them on.  NULL: nothing, or no memory for it.
 */
struct manager_fd *manager_take(unsigned int *ret_nr);

#endif
