/* SPDX-License-Identifier: MIT */
/*
 * keeper_program.c - which program is the server, and trying another.
 *
 * A rehearsal is two processes: one that executes the program, and one that feeds it the
 * records and waits for it, so that the keeper waits for nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "keeper_internal.h"

#define EXIT_NOT_EXECUTED 127

/* ---- executables ---- */

int programs_open(struct programs *p, const char *installed)
{
	ssize_t n = 0;

	*p = (struct programs){ .next = -1 };
	if (installed)
		snprintf(p->installed, sizeof(p->installed), "%s", installed);
	else
		n = readlink("/proc/self/exe", p->installed, sizeof(p->installed) - 1);
	p->good = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	return n < 0 || p->good < 0 ? -errno : 0;
}

int programs_exec(const struct keeper *k, int program, const char *verb, int sock)
{
	char version[16];
	char fd[16];
	char **argv = calloc((size_t)k->start->argc + 5, sizeof(*argv));

	if (!argv)
		return -ENOMEM;
	fcntl(sock, F_SETFD, 0);
	snprintf(version, sizeof(version), "%d", VAULT_VERSION);
	snprintf(fd, sizeof(fd), "%d", sock);
	argv[0] = (char *)"ublkzc";
	argv[1] = (char *)verb;
	argv[2] = version;
	argv[3] = fd;
	for (int i = 0; i < k->start->argc; i++)
		argv[4 + i] = k->start->argv[i];
	fexecve(program, argv, environ);
	free(argv);
	return -errno;
}

bool programs_has_another(const struct programs *p)
{
	struct stat installed, good;

	return stat(p->installed, &installed) == 0 && fstat(p->good, &good) == 0 &&
	       (installed.st_ino != good.st_ino || installed.st_dev != good.st_dev);
}

bool programs_may_serve(const struct programs *p)
{
	return p->next >= 0 && !p->probation && !p->rehearsal.pid;
}

/* ---- rehearsals: the process that looks after one ---- */

struct outcome {
	int status;
	enum wire_reason reason;
};

static struct outcome explain(int status, bool understood)
{
	if (!WIFEXITED(status))
		return (struct outcome){ -EFAULT, WIRE_PROGRAM_FAILS };
	switch (WEXITSTATUS(status)) {
	case 0:
		if (understood)
			return (struct outcome){ 0, WIRE_OK };
		break;
	case EXIT_OTHER_VAULT:
		return (struct outcome){ -EPROTO, WIRE_OTHER_RECORDS };
	case EXIT_OTHER_STATE:
		return (struct outcome){ -EBADMSG, WIRE_OTHER_STATE };
	case EXIT_OTHER_OPTIONS:
		return (struct outcome){ -EINVAL, WIRE_OTHER_OPTIONS };
	}
	return (struct outcome){ -ENOEXEC, WIRE_PROGRAM_FAILS };
}

/* What the program says: that it understands, or, before it is one, why it cannot be. */
static bool hear(int sock, struct outcome *ret)
{
	struct vault_message m;
	int fd = -1;
	bool understood = false;

	*ret = (struct outcome){ 0 };
	while (vault_receive(sock, &m, &fd) == 1) {
		understood |= m.op == VAULT_READY;
		if (m.op == VAULT_OUTCOME)
			*ret = (struct outcome){ m.record.outcome.status, WIRE_PROGRAM_MISSING };
		if (fd >= 0)
			close(fd);
	}
	return understood;
}

static void feed(const struct keeper *k, int sock, pid_t pid, struct outcome *ret)
{
	struct pollfd gone = { .events = POLLIN };
	struct timeval patience = { .tv_sec = k->start->times.rehearsal / 1000 + 1 };
	struct outcome missing;
	bool understood;
	int status = 0;

	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	gone.fd = (int)syscall(SYS_pidfd_open, pid, 0); /* our child, so it is the one */
	keeper_send_all(k, sock);			/* if it does not listen, it says why */
	if (gone.fd < 0 || poll(&gone, 1, k->start->times.rehearsal) == 0) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		*ret = (struct outcome){ -ETIMEDOUT, WIRE_PROGRAM_SLOW };
		return;
	}
	waitpid(pid, &status, 0);
	understood = hear(sock, &missing);
	*ret = missing.status ? missing : explain(status, understood);
}

/* @parent may have died before it could be asked for. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
}

static void become_program(const struct keeper *k, int sock, pid_t parent)
{
	struct vault_record r = { 0 };

	die_with(parent);
	keeper_unspare(k);
	r.outcome.status = programs_exec(k, k->programs.next, "rehearse", sock);
	vault_send(sock, VAULT_OUTCOME, &r, -1);
	_exit(EXIT_NOT_EXECUTED);
}

static void look_after(const struct keeper *k, int to_keeper, pid_t parent)
{
	const pid_t self = getpid();
	struct outcome o = { -EAGAIN, WIRE_PROGRAM_MISSING };
	struct vault_record r = { 0 };
	int socks[2];
	pid_t pid = -1;

	die_with(parent);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) == 0)
		pid = fork();
	if (pid == 0) {
		close(socks[0]);
		become_program(k, socks[1], self);
	}
	if (pid > 0) {
		close(socks[1]);
		feed(k, socks[0], pid, &o);
	}
	r.outcome.status = o.status;
	r.outcome.reason = o.reason;
	_exit(vault_send(to_keeper, VAULT_OUTCOME, &r, -1) ? EXIT_FAILURE : 0);
}

/* ---- rehearsals: the keeper ---- */

static void forget_next(struct programs *p)
{
	if (p->next >= 0)
		close(p->next);
	p->next = -1;
}

int programs_rehearse(struct keeper *k)
{
	struct programs *p = &k->programs;
	const pid_t self = getpid();
	int socks[2];
	pid_t pid;

	if (p->rehearsal.pid || p->probation)
		return -EBUSY;
	forget_next(p);
	p->next = open(p->installed, O_PATH | O_CLOEXEC);
	if (p->next < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		close(socks[0]);
		look_after(k, socks[1], self);
	}
	close(socks[1]);
	if (pid < 0) {
		close(socks[0]);
		return -EAGAIN;
	}
	p->rehearsal = (struct rehearsal){ .pid = pid, .sock = socks[0] };
	return 0;
}

void programs_rehearsed(struct keeper *k, struct vault_record *ret)
{
	struct programs *p = &k->programs;
	struct vault_message m;
	int fd = -1;
	bool told = vault_receive(p->rehearsal.sock, &m, &fd) == 1 && m.op == VAULT_OUTCOME;

	*ret = (struct vault_record){ 0 };
	ret->outcome.status = told ? m.record.outcome.status : -EAGAIN;
	ret->outcome.reason = told ? m.record.outcome.reason : WIRE_PROGRAM_MISSING;
	if (fd >= 0)
		close(fd);
	close(p->rehearsal.sock);
	waitpid(p->rehearsal.pid, NULL, 0);
	p->rehearsal = (struct rehearsal){ 0 };
	if (ret->outcome.status)
		forget_next(p);
}

void programs_stop_rehearsal(struct keeper *k)
{
	struct vault_record ignored;

	if (!k->programs.rehearsal.pid)
		return;
	kill(k->programs.rehearsal.pid, SIGKILL); /* our child; its own child goes with it */
	programs_rehearsed(k, &ignored);
	forget_next(&k->programs);
}
