/* SPDX-License-Identifier: MIT */
/*
 * verb_add.c - "add" and "serve".
 *
 * add forks the server off and waits on a pipe until it says that the device
 * is live, or is gone.  The server keeps the caller's stderr until then, so
 * that what went wrong is seen, and logs to a file from there on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "device.h"
#include "options.h"
#include "state.h"
#include "verbs.h"

/* 0, or the exit status to end with. */
static int parse(int argc, char **argv, struct options *o, int *ret_status)
{
	int ret = options_parse(argc, argv, o);

	*ret_status = ret < 0 ? EXIT_USAGE : 0;
	if (ret == 0 && o->verbose)
		log_init("ublkzc", LOG_DEBUG);
	return ret;
}

/* ---- serve ---- */

/* sd_notify(3)'s protocol: one datagram to the socket the manager named. */
static void notify_manager(const char *text)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *path = secure_getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (len < 2 || len >= sizeof(addr.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(addr.sun_path, path, len);
	if (path[0] == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&addr,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		log_line(LOG_WARN, "the service manager cannot be told: errno %d", errno);
	close(fd);
}

static void serve_ready(unsigned int device, void *arg)
{
	(void)arg;
	printf("/dev/ublkb%u\n", device);
	fflush(stdout);
	notify_manager("READY=1");
}

int verb_serve(int argc, char **argv)
{
	struct options o;
	int status;

	if (parse(argc, argv, &o, &status))
		return status;
	return device_serve(&o, serve_ready, NULL) ? EXIT_FAILURE : 0;
}

/* ---- add ---- */

static void leave_terminal(unsigned int device)
{
	char path[64];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int log;

	snprintf(path, sizeof(path), STATE_DIR "/ublkb%u.log", device);
	log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
	}
	dup2(log >= 0 ? log : null, 2);
	if (chdir("/") < 0)
		log_line(LOG_WARN, "chdir /: errno %d", errno);
}

static void add_ready(unsigned int device, void *arg)
{
	int pipe_fd = *(int *)arg;

	leave_terminal(device);
	if (write(pipe_fd, &device, sizeof(device)) < 0)
		log_line(LOG_WARN, "ublkzc add went away before the device was live");
	close(pipe_fd);
}

static int run_server(const struct options *o, int pipe_fd)
{
	setsid();
	return device_serve(o, add_ready, &pipe_fd) ? EXIT_FAILURE : 0;
}

int verb_add(int argc, char **argv)
{
	struct options o;
	unsigned int device;
	int fds[2];
	int status;
	pid_t pid;
	ssize_t n;

	if (parse(argc, argv, &o, &status))
		return status;
	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		log_error(-errno, "start the server");
		return EXIT_FAILURE;
	}
	if (pid == 0) {
		close(fds[0]);
		return run_server(&o, fds[1]);
	}
	close(fds[1]);
	while ((n = read(fds[0], &device, sizeof(device))) < 0 && errno == EINTR)
		;
	if (n == sizeof(device)) {
		printf("/dev/ublkb%u\n", device);
		return 0;
	}
	/* The server has said why, except when it was killed. */
	if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		log_line(LOG_ERROR, "the server was killed by signal %d while starting",
			 WTERMSIG(status));
	return EXIT_FAILURE;
}
