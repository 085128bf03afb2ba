/* SPDX-License-Identifier: MIT */
/*
 * storage SOCKET FILE - a storage that is elsewhere, for the engine "remote".
 *
 * The first write to offset 0 it keeps, as a network might: it comes when SIGUSR1 does, when the
 * other end may long have gone away; unless somebody asks for a fence, which forgets what was of
 * those who went away.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "remote.h"

#define CLIENTS 16
#define JOBS 1024

struct job {
	bool used;
	bool orphan; /* of a client that is gone */
	bool kept;   /* the first write to offset 0 */
	int fd;
	struct remote_request rq;
	char *data;
};

static struct job jobs[JOBS];
static int file;
static bool have_kept;
static volatile sig_atomic_t now;

static void do_it_now(int signal_number)
{
	(void)signal_number;
	now = 1;
}

static bool move_all(int fd, char *data, size_t len, bool out)
{
	while (len) {
		ssize_t n = out ? send(fd, data, len, MSG_NOSIGNAL) : read(fd, data, len);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static void do_job(struct job *job)
{
	struct remote_reply reply = { job->rq.tag, 0 };
	uint32_t len = job->rq.len;
	bool reads = job->rq.op == REMOTE_READ;
	ssize_t n = reads ? pread(file, job->data, len, (off_t)job->rq.offset)
			  : pwrite(file, job->data, len, (off_t)job->rq.offset);

	if (n != (ssize_t)len)
		reply.result = -5; /* EIO */
	if (job->orphan)
		printf("late: %u bytes at %llu\n", len, (unsigned long long)job->rq.offset);
	else if (move_all(job->fd, (char *)&reply, sizeof(reply), true) && reads && !reply.result)
		(void)!move_all(job->fd, job->data, len, true);
	free(job->data);
	job->used = false;
}

static void forget_orphans(void)
{
	for (int i = 0; i < JOBS; i++) {
		if (!jobs[i].used || !jobs[i].orphan)
			continue;
		printf("fenced: %u bytes at %llu\n", jobs[i].rq.len,
		       (unsigned long long)jobs[i].rq.offset);
		free(jobs[i].data);
		jobs[i].used = false;
	}
}

static bool take_request(int fd)
{
	struct job *job = jobs;
	struct remote_request rq;
	struct remote_reply reply = { 0 };

	if (!move_all(fd, (char *)&rq, sizeof(rq), false) || rq.len > REMOTE_MAX_IO)
		return false;
	if (rq.op == REMOTE_FENCE) {
		forget_orphans();
		return move_all(fd, (char *)&reply, sizeof(reply), true);
	}
	while (job < jobs + JOBS && job->used)
		job++;
	if (job == jobs + JOBS)
		return false;
	*job = (struct job){ .used = true, .fd = fd, .rq = rq };
	job->data = malloc(rq.len + 1);
	if (!job->data || (rq.op == REMOTE_WRITE && !move_all(fd, job->data, rq.len, false)))
		return false;
	if (!have_kept && rq.op == REMOTE_WRITE && !rq.offset) {
		have_kept = job->kept = true;
		printf("kept: %u bytes at 0\n", rq.len);
	}
	return true;
}

static void lose_client(int *fd)
{
	for (int i = 0; i < JOBS; i++)
		if (jobs[i].used && jobs[i].fd == *fd)
			jobs[i].orphan = true;
	close(*fd);
	*fd = -1;
}

static void do_all(void)
{
	for (int i = 0; i < JOBS; i++)
		if (jobs[i].used && (!jobs[i].kept || now))
			do_job(&jobs[i]);
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 16) < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	struct pollfd fds[CLIENTS + 1];

	if (argc != 3)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	file = open(argv[2], O_RDWR | O_CLOEXEC);
	signal(SIGUSR1, do_it_now);
	for (int i = 0; i <= CLIENTS; i++)
		fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	fds[CLIENTS].fd = listen_at(argv[1]);
	while (file >= 0) {
		if (poll(fds, CLIENTS + 1, 5) <= 0)
			for (int i = 0; i <= CLIENTS; i++)
				fds[i].revents = 0;
		for (int i = 0; i < CLIENTS; i++)
			if (fds[i].fd >= 0 && fds[i].revents && !take_request(fds[i].fd))
				lose_client(&fds[i].fd);
		for (int i = 0; fds[CLIENTS].revents && i < CLIENTS; i++)
			if (fds[i].fd < 0) {
				fds[i].fd = accept(fds[CLIENTS].fd, NULL, NULL);
				fds[i].revents = 0;
				break;
			}
		do_all();
	}
	return 1;
}
