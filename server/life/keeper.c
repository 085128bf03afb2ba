/* SPDX-License-Identifier: MIT */
/* keeper.c - see keeper.h. */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "keeper_internal.h"

long long keeper_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* ---- starting servers ---- */

static void become_server(const struct keeper *k, int sock)
{
	const struct programs *p = &k->programs;
	struct vault v = { .fd = sock };
	int err;

	keeper_unspare(k);
	if (!k->live)
		_exit(k->start->serve(&v, k->start->arg));
	err = programs_exec(k, p->probation ? p->next : p->good, "take-over", sock);
	log_error(err, "start a successor");
	_exit(EXIT_FAILURE);
}

/* Our child, which nobody else waits for. */
void keeper_signal(const struct keeper *k, int signal)
{
	if (k->pid > 0)
		syscall(SYS_pidfd_send_signal, k->pidfd, signal, NULL, 0);
}

/*
 * A server whose end could not be noticed.  The first one may have begun to make a device,
 * and takes it down; a successor that dies leaves the device as it was.
 */
static int take_back(struct keeper *k, int sock, int err)
{
	close(sock);
	kill(k->pid, k->live ? SIGKILL : SIGTERM);
	while (waitpid(k->pid, NULL, 0) < 0 && errno == EINTR)
		;
	k->pid = 0;
	return err;
}

static int start_server(struct keeper *k)
{
	struct timeval patience = { .tv_sec = KEEPER_SEND_S };
	int socks[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
		return -errno;
	k->live_at = 0;
	k->leaving = k->killed = false;
	k->started_at = keeper_now_ms();
	if (k->live && !k->told)
		manager_tell("EXTEND_TIMEOUT_USEC=" KEEPER_EXTEND_US);
	k->pid = fork();
	if (k->pid == 0) {
		close(socks[0]);
		become_server(k, socks[1]);
	}
	close(socks[1]);
	if (k->pid < 0) {
		k->pid = 0;
		close(socks[0]);
		return -EAGAIN;
	}
	k->pidfd = (int)syscall(SYS_pidfd_open, k->pid, 0);
	if (k->pidfd < 0)
		return take_back(k, socks[0], -errno);
	k->sock = socks[0];
	/* A successor that does not read its inheritance holds us up no longer. */
	setsockopt(k->sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (k->live && keeper_send_all(k, k->sock))
		keeper_signal(k, SIGKILL);
	return 0;
}

/* ---- keeping ---- */

static void is_ready(struct keeper *k, unsigned int device)
{
	k->live_at = keeper_now_ms();
	k->device = device;
	if (!k->told)
		k->start->ready(device, k->start->arg);
	if (k->live)
		log_line(LOG_WARN, "/dev/ublkb%u is served again, by process %d", device,
			 (int)k->pid);
	k->live = k->told = true;
	upgrade_tell_failure(k);
}

/* From include/linux/sched.h, as /proc/PID/stat has it for everybody. */
#define PF_EXITING 0x4

/*
 * The server closed its end.  Either it is dying, which may take long after that (much memory, a
 * file whose last close waits), or it has given up on us after an error: then it goes on alone.
 */
static bool dies(const struct keeper *k)
{
	struct pollfd gone = { .fd = k->pidfd, .events = POLLIN };
	char path[32];
	char text[512];
	const char *after_name;
	unsigned int flags = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)k->pid); /* our child */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	after_name = strrchr(text, ')');
	if (after_name && sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1)
		return flags & PF_EXITING;
	return poll(&gone, 1, KEEPER_DYING_MS) > 0;
}

/* The server's end of the connection is closed, and ours will be. */
static void hung_up(struct keeper *k, bool broken)
{
	k->stale |= broken || !dies(k);
	if (k->stale)
		store_give_up(k);
	/* One that goes on alone waits for this: whoever tries a program has it open, too. */
	shutdown(k->sock, SHUT_RDWR);
	close(k->sock);
	k->sock = -1;
	/* It would serve and nobody would ever hear of it. */
	if (k->stale && !k->live) {
		log_line(LOG_ERROR, "the server does not reach its keeper: it is stopped");
		keeper_signal(k, SIGTERM);
	}
}

/* One message; false when there are no more. */
static bool read_message(struct keeper *k)
{
	struct vault_message m;
	int fd;
	int got = vault_receive(k->sock, &m, &fd);

	if (got != 1) {
		hung_up(k, got < 0);
		return false;
	}
	switch (m.op) {
	case VAULT_PUT:
		keeper_put(k, &m.record, fd);
		return true;
	case VAULT_DROP:
		keeper_drop(k, m.record.id);
		break;
	case VAULT_READY:
		is_ready(k, m.record.state.number);
		break;
	case VAULT_TRY:
		upgrade_try(k);
		break;
	case VAULT_LEAVE:
		k->leaving = programs_may_serve(&k->programs);
		break;
	}
	if (fd >= 0)
		close(fd);
	return true;
}

static void stop(struct keeper *k)
{
	if (!k->stopping)
		k->kill_at = keeper_now_ms() + KEEPER_STOP_MS;
	k->stopping = true;
	keeper_signal(k, SIGTERM);
}

/* Until something is to be done though nothing has happened: ms, or -1. */
static int patience(const struct keeper *k)
{
	int ms = k->stopping ? 1000 : upgrade_deadline(k);

	return k->store.nr_tasks && (ms < 0 || ms > STORE_AGAIN_MS) ? STORE_AGAIN_MS : ms;
}

/* Returns whether the server has ended; @ret_status as of waitpid(2). */
static bool watch(struct keeper *k, int *ret_status)
{
	const struct rehearsal *rehearsal = &k->programs.rehearsal;
	struct pollfd fds[] = {
		{ .fd = k->signal_fd, .events = POLLIN },
		{ .fd = k->pidfd, .events = POLLIN },
		{ .fd = k->sock, .events = POLLIN },
		{ .fd = rehearsal->pid ? rehearsal->sock : -1, .events = POLLIN },
	};
	struct signalfd_siginfo info;

	poll(fds, 4, patience(k));
	if (k->store.nr_tasks)
		store_go_on(k);
	if (fds[0].revents && read(k->signal_fd, &info, sizeof(info)) == sizeof(info))
		stop(k);
	if (fds[2].revents)
		read_message(k);
	if (fds[3].revents)
		upgrade_tried(k);
	if (!fds[1].revents || waitpid(k->pid, ret_status, 0) != k->pid) {
		if (!k->stopping)
			upgrade_keep_deadline(k);
		else if (keeper_now_ms() > k->kill_at)
			keeper_signal(k, SIGKILL);
		return false;
	}
	/* What it said before it died still counts. */
	while (k->sock >= 0 && read_message(k))
		;
	close(k->pidfd);
	k->pid = 0;
	return true;
}

static void explain_end(const struct keeper *k, int status)
{
	if (WIFSIGNALED(status))
		log_line(LOG_ERROR, "the server of /dev/ublkb%u was killed by signal %d (%s)",
			 k->device, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		log_line(LOG_ERROR, "the server of /dev/ublkb%u ended with status %d", k->device,
			 WEXITSTATUS(status));
}

/* The exit status for the keeper, or -1: a successor is wanted. */
static int judge_end(const struct keeper *k, int status)
{
	if (!k->live) {
		/* It has said why, except when it was killed. */
		if (WIFSIGNALED(status))
			log_line(LOG_ERROR, "the server was killed by signal %d while starting",
				 WTERMSIG(status));
		return EXIT_FAILURE;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && k->live_at && !k->leaving)
		return 0;
	if (!k->leaving)
		explain_end(k, status);
	if (k->stale) {
		log_line(LOG_ERROR,
			 "what is known about /dev/ublkb%u is not complete: it waits for ublkzc "
			 "recover -n %u",
			 k->device, k->device);
		return EXIT_WAITS;
	}
	if (k->stopping || (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_GONE))
		return EXIT_FAILURE;
	return -1;
}

static bool has_lasted(const struct keeper *k)
{
	return k->live_at && keeper_now_ms() - k->live_at >= KEEPER_LASTS_MS;
}

/* Nobody serves: until @fd is readable, but not when we are told to stop. */
static void wait_unless_stopped(struct keeper *k, int fd, int ms)
{
	struct pollfd p[] = {
		{ .fd = k->signal_fd, .events = POLLIN },
		{ .fd = fd, .events = POLLIN },
	};

	if (poll(p, 2, ms) > 0 && p[0].revents)
		k->stopping = true;
}

/* Servers that do not last are started ever more slowly. */
static void pause_before_next(struct keeper *k)
{
	unsigned int most = k->live_at ? KEEPER_PAUSE_LIVE_MAX_MS : KEEPER_PAUSE_MAX_MS;

	k->pause_ms = k->pause_ms ? k->pause_ms * 2 : KEEPER_PAUSE_MIN_MS;
	if (k->pause_ms > most)
		k->pause_ms = most;
	wait_unless_stopped(k, -1, (int)k->pause_ms);
}

/* A program that keeps dying cannot be asked to hand over. */
static void look_for_another(struct keeper *k)
{
	struct programs *p = &k->programs;
	struct vault_record r;

	if (p->deaths < KEEPER_DEATHS || !programs_has_another(p) || programs_rehearse(k))
		return;
	wait_unless_stopped(k, p->rehearsal.sock, 2 * k->start->times.rehearsal);
	if (k->stopping) {
		programs_stop_rehearsal(k);
		return;
	}
	programs_rehearsed(k, &r);
	p->probation = !r.outcome.status;
	p->deaths = 0;
}

/* The server has ended: which program comes next, and when? */
static void prepare_next(struct keeper *k)
{
	struct programs *p = &k->programs;

	programs_stop_rehearsal(k);
	if (k->leaving) {
		p->probation = true;
		return;
	}
	if (!k->failed)
		k->failed = WIRE_SERVER_DIED;
	if (p->probation)
		upgrade_fall_back(k);
	else
		p->deaths = has_lasted(k) ? 0 : p->deaths + 1;
	if (has_lasted(k))
		k->pause_ms = 0;
	else
		pause_before_next(k);
	if (!k->stopping)
		look_for_another(k);
}

/* Where there is a device, again and again: its I/O waits. */
static int start_some_server(struct keeper *k)
{
	int ret;

	while ((ret = start_server(k)) && k->live && !k->stopping) {
		log_error(ret, "start a successor");
		pause_before_next(k);
	}
	return ret;
}

static int keep(struct keeper *k)
{
	int status = 0;
	int ret = start_some_server(k);

	if (ret)
		return log_error(ret, "start the server"), EXIT_FAILURE;
	for (;;) {
		if (!watch(k, &status))
			continue;
		ret = judge_end(k, status);
		if (ret < 0)
			prepare_next(k);
		else
			return ret;
		if (!k->stopping)
			start_some_server(k);
		if (k->stopping)
			return EXIT_FAILURE; /* del takes the device itself */
	}
}

int keeper_run(const struct keeper_start *start)
{
	struct keeper k = { .start = start, .sock = -1, .pidfd = -1, .store = { .fd = -1 } };
	sigset_t set;
	int ret;

	ret = programs_open(&k.programs, start->program);
	if (ret)
		return log_error(ret, "/proc/self/exe"), EXIT_FAILURE;
	keeper_spare(&k);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	k.signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (k.signal_fd < 0)
		return log_error(-errno, "signalfd"), EXIT_FAILURE;
	if (store_open(&k))
		return EXIT_FAILURE;
	ret = keep(&k);
	programs_stop_rehearsal(&k);
	close(k.signal_fd);
	return ret;
}
