/* SPDX-License-Identifier: MIT */
/*
 * closer.h - close what came from a client without waiting for it.
 *
 * The last close of a file can take for ever: that of a file on FUSE is answered by a
 * program, perhaps the client's own, that of a TCP socket may linger as long as its owner
 * chose, that of a unix socket closes what nobody has read from it, and that of a disk or of
 * much memory writes or frees it.  So the control thread hands such descriptors to a
 * thread, one for each user who has some (worker.h): a user can only hold up its own.
 *
 * Any thread; nothing here waits.
 */
#ifndef UBLKZC_SERVER_CLOSER_H
#define UBLKZC_SERVER_CLOSER_H

#include <stdbool.h>
#include <sys/types.h>

/* Descriptors of one user that may wait to be closed, before nothing more is taken. */
#define CLOSER_USER_MAX 4096

/* Bytes of memory that can be freed without anybody noticing. */
#define CLOSER_LITTLE (1 << 20)

/* Close @fds, which @user sent. */
void closer_close(uid_t user, const int *fds, unsigned int nr);

/* End @user's connection now; what it sent and nobody has read is closed with it later. */
void closer_hang_up(uid_t user, int sock);

/* Is so much of @user's being closed that no more should be received? */
bool closer_full(uid_t user);

/* Descriptors that are still to be closed, of all users. */
unsigned int closer_pending(void);

#endif
