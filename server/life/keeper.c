/* SPDX-License-Identifier: MIT */
/* keeper.c - see keeper.h. */
#include "keeper.h"

#include <errno.h>
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
static void signal_server(const struct keeper *k, int signal)
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
	k->leaving = false;
	k->started_at = keeper_now_ms();
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
		signal_server(k, SIGKILL);
	return 0;
}

/* ---- upgrades ---- */

static void tell_outcome(const struct keeper *k, int status, enum wire_reason reason)
{
	struct vault_record r = { .outcome = { .status = status, .reason = reason } };

	if (k->sock >= 0)
		vault_send(k->sock, VAULT_OUTCOME, &r, -1);
}

static void try_installed(struct keeper *k)
{
	int ret = programs_rehearse(k);

	if (ret)
		tell_outcome(k, ret, ret == -EBUSY ? WIRE_UPGRADING : WIRE_PROGRAM_MISSING);
}

static void rehearsed(struct keeper *k)
{
	struct vault_record r;

	programs_rehearsed(k, &r);
	tell_outcome(k, r.outcome.status, r.outcome.reason);
}

static void prove(struct keeper *k)
{
	struct programs *p = &k->programs;

	close(p->good);
	p->good = p->next;
	p->next = -1;
	p->probation = false;
	tell_outcome(k, 0, WIRE_OK);
}

static void fall_back(struct keeper *k)
{
	struct programs *p = &k->programs;

	log_line(LOG_ERROR, "/dev/ublkb%u: the new program has not lasted; the old one comes back",
		 k->device);
	close(p->next);
	p->next = -1;
	p->probation = false;
	p->deaths = 0; /* those were not the old one's, which gets its tries again */
	k->fell_back = true;
}

/* Milliseconds until something is due, or -1. */
static int next_deadline(const struct keeper *k)
{
	long long left;

	if (k->stopping)
		return 1000;
	if (!k->programs.probation)
		return -1;
	left = k->live_at ? k->live_at + k->start->times.probation
			  : k->started_at + k->start->times.start;
	left -= keeper_now_ms();
	return left > 0 ? (int)left : 0;
}

static void keep_deadlines(struct keeper *k)
{
	if (k->stopping && keeper_now_ms() > k->kill_at)
		signal_server(k, SIGKILL);
	if (!k->programs.probation || k->leaving || next_deadline(k) > 0)
		return;
	if (k->live_at)
		prove(k);
	else
		signal_server(k, SIGKILL); /* it does not become live */
}

/* ---- keeping ---- */

static void is_ready(struct keeper *k, unsigned int device)
{
	k->live_at = keeper_now_ms();
	k->device = device;
	if (!k->live)
		k->start->ready(device, k->start->arg);
	else
		log_line(LOG_WARN, "/dev/ublkb%u is served again, by process %d", device,
			 (int)k->pid);
	k->live = true;
	if (k->fell_back)
		tell_outcome(k, -ENOEXEC, WIRE_PROGRAM_DIED);
	k->fell_back = false;
}

/*
 * The server closed its end.  Either it is just dying, or it has given up on us after an
 * error: then it goes on and tells nobody.
 */
static bool dies(const struct keeper *k)
{
	struct pollfd p = { .fd = k->pidfd, .events = POLLIN };

	return poll(&p, 1, KEEPER_DYING_MS) > 0;
}

/* One message; false when there are no more. */
static bool read_message(struct keeper *k)
{
	struct vault_message m;
	int fd;
	int got = vault_receive(k->sock, &m, &fd);

	if (got != 1) {
		close(k->sock);
		k->sock = -1;
		k->stale |= got < 0 || !dies(k);
		/* It would serve and nobody would ever hear of it. */
		if (k->stale && !k->live) {
			log_line(LOG_ERROR, "the server does not reach its keeper: it is stopped");
			signal_server(k, SIGTERM);
		}
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
		try_installed(k);
		break;
	case VAULT_LEAVE:
		k->leaving = k->programs.next >= 0 && !k->programs.probation;
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
	signal_server(k, SIGTERM);
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

	poll(fds, 4, next_deadline(k));
	if (fds[0].revents && read(k->signal_fd, &info, sizeof(info)) == sizeof(info))
		stop(k);
	if (fds[2].revents)
		read_message(k);
	if (fds[3].revents)
		rehearsed(k);
	if (!fds[1].revents || waitpid(k->pid, ret_status, 0) != k->pid) {
		keep_deadlines(k);
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
		return EXIT_FAILURE;
	}
	if (k->stopping || (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_GONE))
		return EXIT_FAILURE;
	return -1;
}

static bool has_lasted(const struct keeper *k)
{
	return k->live_at && keeper_now_ms() - k->live_at >= KEEPER_LASTS_MS;
}

/* Servers that do not last are started ever more slowly. */
static void pause_before_next(struct keeper *k)
{
	struct pollfd p = { .fd = k->signal_fd, .events = POLLIN };
	unsigned int most = k->live_at ? KEEPER_PAUSE_LIVE_MAX_MS : KEEPER_PAUSE_MAX_MS;

	k->pause_ms = k->pause_ms ? k->pause_ms * 2 : KEEPER_PAUSE_MIN_MS;
	if (k->pause_ms > most)
		k->pause_ms = most;
	if (poll(&p, 1, (int)k->pause_ms) > 0)
		k->stopping = true;
}

/* A program that keeps dying cannot be asked to hand over. */
static void look_for_another(struct keeper *k)
{
	struct programs *p = &k->programs;
	struct pollfd done = { .events = POLLIN };
	struct vault_record r;

	if (p->deaths < KEEPER_DEATHS || !programs_has_another(p) || programs_rehearse(k))
		return;
	done.fd = p->rehearsal.sock;
	poll(&done, 1, 2 * k->start->times.rehearsal);
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
	if (p->probation)
		fall_back(k);
	else
		p->deaths = has_lasted(k) ? 0 : p->deaths + 1;
	if (has_lasted(k))
		k->pause_ms = 0;
	else
		pause_before_next(k);
	look_for_another(k);
}

static int keep(struct keeper *k)
{
	int status = 0;
	int ret = start_server(k);

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
		while (!k->stopping && (ret = start_server(k))) {
			log_error(ret, "start a successor");
			pause_before_next(k);
		}
		if (k->stopping)
			return EXIT_FAILURE; /* del takes the device itself */
	}
}

int keeper_run(const struct keeper_start *start)
{
	struct keeper k = { .start = start, .sock = -1, .pidfd = -1 };
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
	ret = keep(&k);
	programs_stop_rehearsal(&k);
	close(k.signal_fd);
	return ret;
}
