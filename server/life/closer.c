/* SPDX-License-Identifier: MIT */
/*
 * closer.c - see closer.h.
 *
 * Without a thread or the memory to note it, a descriptor stays open: never wait, never
 * forget to say so.
 */
#include "closer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "worker.h"

struct job {
	struct worker_job work; /* first */
	int fd;
	bool connection;
};

/* ---- the thread of a user ---- */

static bool is_stream(int sock)
{
	int type = SOCK_STREAM;
	socklen_t len = sizeof(type);

	getsockopt(sock, SOL_SOCKET, SO_TYPE, &type, &len);
	return type == SOCK_STREAM;
}

/*
 * Take the next record, or with MSG_PEEK look at it; false: there is none.  An empty record
 * looks like the end of a connection, but comes with its sender's credentials; a stream has
 * no empty records.  Descriptors find no room and are dropped.
 */
static bool take_record(int sock, int flags)
{
	char bytes[4096];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
	} control = { 0 };
	struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t len = recvmsg(sock, &msg, flags | MSG_DONTWAIT);

	return len > 0 || (!len && msg.msg_controllen > 0 && !is_stream(sock));
}

static void do_job(struct worker_job *work)
{
	struct job *job = (struct job *)work;

	/* The keeper has the connection too, and must not be the one to wait. */
	while (job->connection && take_record(job->fd, 0))
		;
	close(job->fd);
}

/* ---- handing over ---- */

static void hand_over(uid_t uid, int fd, bool connection)
{
	struct job *job = malloc(sizeof(*job));
	int ret = -ENOMEM;

	if (job) {
		*job = (struct job){ .work.run = do_job, .fd = fd, .connection = connection };
		ret = worker_start(uid, WORKER_CLOSE, &job->work);
	}
	if (!ret)
		return;
	log_error(ret, "a descriptor of user %u stays open", (unsigned int)uid);
	free(job);
}

/*
 * Even the last close of a file on a disk, or of much memory, may have much to give back, or to
 * write: only little memory has not.  Without asking a file system's server (FUSE), who may never
 * answer.
 */
static bool takes_no_time(int fd)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_BLOCKS, &st) < 0)
		return false;
	return S_ISFIFO(st.stx_mode) ||
	       (fcntl(fd, F_GET_SEALS) >= 0 && st.stx_blocks * 512 <= CLOSER_LITTLE);
}

void closer_close(uid_t user, const int *fds, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		if (takes_no_time(fds[i]))
			close(fds[i]);
		else
			hand_over(user, fds[i], false);
	}
}

void closer_hang_up(uid_t user, int sock)
{
	int on = 1;

	shutdown(sock, SHUT_RDWR); /* from here on nothing comes */
	setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	if (take_record(sock, MSG_PEEK))
		hand_over(user, sock, true);
	else
		close(sock);
}

bool closer_full(uid_t user)
{
	return worker_pending_of(user, WORKER_CLOSE) >= CLOSER_USER_MAX;
}

unsigned int closer_pending(void)
{
	return worker_pending(WORKER_CLOSE);
}
