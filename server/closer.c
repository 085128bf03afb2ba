/* SPDX-License-Identifier: MIT */
/*
 * closer.c - see closer.h.
 *
 * A user is in the list while its thread runs.  Without a thread or the memory to note
 * it, a descriptor stays open: never wait, never forget to say so.
 */
#include "closer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

struct job {
	struct job *next;
	int fd;
	bool connection;
};

struct user {
	struct user *next;
	uid_t uid;
	unsigned int nr; /* jobs, with the one that is being done */
	struct job *first;
	struct job **last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct user *users; /* under the lock, as all that is in it */

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

static void do_job(struct job *job)
{
	/* The keeper has the connection too, and must not be the one to wait. */
	while (job->connection && take_record(job->fd, 0))
		;
	close(job->fd);
	free(job);
}

static void unlink_user(const struct user *u)
{
	struct user **link = &users;

	while (*link != u)
		link = &(*link)->next;
	*link = u->next;
}

static void *close_all(void *arg)
{
	struct user *u = arg;
	struct job *job;

	pthread_mutex_lock(&lock);
	while ((job = u->first)) {
		u->first = job->next;
		if (!u->first)
			u->last = &u->first;
		pthread_mutex_unlock(&lock);
		do_job(job);
		pthread_mutex_lock(&lock);
		u->nr--;
	}
	unlink_user(u);
	pthread_mutex_unlock(&lock);
	free(u);
	return NULL;
}

static int start_thread(struct user *u)
{
	sigset_t all, before;
	pthread_t thread;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&thread, NULL, close_all, u);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!err)
		pthread_detach(thread);
	return -err;
}

/* ---- handing over ---- */

static struct user *find(uid_t uid)
{
	struct user *u = users;

	while (u && u->uid != uid)
		u = u->next;
	return u;
}

/* The user with @job as its first, and a thread. */
static int new_user(uid_t uid, struct job *job)
{
	struct user *u = malloc(sizeof(*u));
	int ret;

	if (!u)
		return -ENOMEM;
	*u = (struct user){ .next = users, .uid = uid, .nr = 1, .first = job, .last = &job->next };
	users = u;
	ret = start_thread(u);
	if (ret) {
		users = u->next;
		free(u);
	}
	return ret;
}

static void hand_over(uid_t uid, int fd, bool connection)
{
	struct job *job = malloc(sizeof(*job));
	int ret = job ? 0 : -ENOMEM;
	struct user *u;

	if (job) {
		*job = (struct job){ .fd = fd, .connection = connection };
		pthread_mutex_lock(&lock);
		u = find(uid);
		if (u) {
			*u->last = job;
			u->last = &job->next;
			u->nr++;
		} else {
			ret = new_user(uid, job);
		}
		pthread_mutex_unlock(&lock);
	}
	if (!ret)
		return;
	log_error(ret, "a descriptor of user %u stays open", (unsigned int)uid);
	free(job);
}

/* Memory, pipes, disks and what is on them, but for file systems that ask others. */
static bool takes_no_time(int fd)
{
	struct statx stx = { 0 };

	if (fcntl(fd, F_GET_SEALS) >= 0)
		return true;
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0)
		return false;
	if (S_ISBLK(stx.stx_mode) || S_ISFIFO(stx.stx_mode))
		return true;
	return (S_ISREG(stx.stx_mode) || S_ISDIR(stx.stx_mode)) && stx.stx_dev_major;
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
	struct user *u;
	bool full;

	pthread_mutex_lock(&lock);
	u = find(user);
	full = u && u->nr >= CLOSER_USER_MAX;
	pthread_mutex_unlock(&lock);
	return full;
}

unsigned int closer_pending(void)
{
	unsigned int nr = 0;

	pthread_mutex_lock(&lock);
	for (const struct user *u = users; u; u = u->next)
		nr += u->nr;
	pthread_mutex_unlock(&lock);
	return nr;
}
