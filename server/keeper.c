/* SPDX-License-Identifier: MIT */
/* keeper.c - see keeper.h. */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <search.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

struct kept {
	struct vault_record record; /* first: compared by its id */
	int fd;			    /* -1: none */
};

struct keeper {
	const struct keeper_start *start;
	void *kept; /* tsearch(3) tree of struct kept, by id */
	char program[4096];
	bool old_program; /* the installed one does not understand our records */
	char oom_score_adj[16];
	int signal_fd;
	int sock; /* to the server; -1: it has hung up */
	pid_t pid;
	int pidfd;
	bool ready; /* this server has been live */
	bool live;  /* some server has */
	bool stale; /* records are missing: a successor would serve wrong memory */
	unsigned int device;
	bool stopping;
	long long kill_at; /* ms; while stopping */
	unsigned int pause_ms;
};

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* ---- records ---- */

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = ((const struct vault_record *)a)->id;
	uint64_t y = ((const struct vault_record *)b)->id;

	return (x > y) - (x < y);
}

static void put(struct keeper *k, const struct vault_record *r, int fd)
{
	struct kept **found = tfind(r, &k->kept, compare_ids);
	struct kept *new;

	if (found) {
		/* A record that changes keeps its descriptor unless it gets another. */
		(*found)->record = *r;
		if (fd >= 0) {
			if ((*found)->fd >= 0)
				close((*found)->fd);
			(*found)->fd = fd;
		}
		return;
	}
	new = malloc(sizeof(*new));
	if (new) {
		*new = (struct kept){ .record = *r, .fd = fd };
		if (tsearch(new, &k->kept, compare_ids))
			return;
	}
	log_error(-ENOMEM, "keep a record of device %u", k->device);
	k->stale = true;
	free(new);
	if (fd >= 0)
		close(fd);
}

static void drop(struct keeper *k, uint64_t id)
{
	struct vault_record key = { .id = id };
	struct kept **found = tfind(&key, &k->kept, compare_ids);
	struct kept *kept = found ? *found : NULL;

	if (!kept)
		return;
	tdelete(&key, &k->kept, compare_ids);
	if (kept->fd >= 0)
		close(kept->fd);
	free(kept);
}

struct sending {
	int sock;
	int error;
};

/* twalk_r() visits inner nodes three times; in order is the second. */
static void send_kept(const void *node, VISIT visit, void *arg)
{
	const struct kept *kept = *(const struct kept *const *)node;
	struct sending *s = arg;

	if (!s->error && (visit == postorder || visit == leaf))
		s->error = vault_send(s->sock, VAULT_PUT, &kept->record, kept->fd);
}

static int send_all(const struct keeper *k)
{
	struct vault_record none = { 0 };
	struct sending s = { .sock = k->sock };

	twalk_r(k->kept, send_kept, &s);
	return s.error ? s.error : vault_send(k->sock, VAULT_END, &none, -1);
}

/* ---- when memory runs out: not the keeper, which has none; proc(5) ---- */

static const char oom_path[] = "/proc/self/oom_score_adj";

static void write_oom_score_adj(const char *score)
{
	FILE *f = fopen(oom_path, "we");

	if (!f)
		return;
	fputs(score, f);
	fclose(f);
}

static void spare_keeper(struct keeper *k)
{
	FILE *f = fopen(oom_path, "re");

	strcpy(k->oom_score_adj, "0");
	if (f) {
		if (fscanf(f, "%15s", k->oom_score_adj) != 1)
			strcpy(k->oom_score_adj, "0");
		fclose(f);
	}
	write_oom_score_adj("-1000");
}

/* ---- starting servers ---- */

/* The program's path now; what is installed there later is the successor. */
static void note_program(struct keeper *k)
{
	ssize_t n = readlink("/proc/self/exe", k->program, sizeof(k->program) - 1);

	k->program[n > 0 ? n : 0] = '\0';
}

static void exec_program(const struct keeper *k, const char *path, int sock)
{
	char version[16];
	char fd[16];
	char **argv = calloc((size_t)k->start->argc + 5, sizeof(*argv));

	if (!argv)
		return;
	snprintf(version, sizeof(version), "%d", VAULT_VERSION);
	snprintf(fd, sizeof(fd), "%d", sock);
	argv[0] = (char *)"ublkzc";
	argv[1] = (char *)"take-over";
	argv[2] = version;
	argv[3] = fd;
	for (int i = 0; i < k->start->argc; i++)
		argv[4 + i] = k->start->argv[i];
	execv(path, argv);
	free(argv);
}

static void unblock_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void become_server(const struct keeper *k, int sock)
{
	struct vault v = { .fd = sock };

	unblock_signals();
	write_oom_score_adj(k->oom_score_adj);
	if (!k->live)
		_exit(k->start->serve(&v, k->start->arg));
	fcntl(sock, F_SETFD, 0);
	if (!k->old_program)
		exec_program(k, k->program, sock);
	exec_program(k, "/proc/self/exe", sock);
	log_error(-errno, "start %s", k->program);
	_exit(EXIT_FAILURE);
}

static int start_server(struct keeper *k)
{
	struct timeval patience = { .tv_sec = KEEPER_SEND_S };
	int socks[2];
	int ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
		return -errno;
	k->ready = false;
	k->pid = fork();
	if (k->pid == 0) {
		close(socks[0]);
		become_server(k, socks[1]);
	}
	ret = -errno;
	close(socks[1]);
	if (k->pid < 0) {
		close(socks[0]);
		return ret;
	}
	k->sock = socks[0];
	k->pidfd = (int)syscall(SYS_pidfd_open, k->pid, 0);
	/* A successor that does not read its inheritance holds us up no longer. */
	setsockopt(k->sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (k->live && send_all(k))
		kill(k->pid, SIGKILL);
	return 0;
}

/* ---- keeping ---- */

static void is_ready(struct keeper *k, unsigned int device)
{
	k->ready = true;
	k->pause_ms = 0;
	k->device = device;
	if (!k->live)
		k->start->ready(device, k->start->arg);
	else
		log_line(LOG_WARN, "/dev/ublkb%u is served again, by process %d", device,
			 (int)k->pid);
	k->live = true;
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
		return false;
	}
	switch (m.op) {
	case VAULT_PUT:
		put(k, &m.record, fd);
		return true;
	case VAULT_DROP:
		drop(k, m.record.id);
		break;
	case VAULT_READY:
		is_ready(k, m.record.state.number);
		break;
	}
	if (fd >= 0)
		close(fd);
	return true;
}

static void stop(struct keeper *k)
{
	if (!k->stopping)
		k->kill_at = now_ms() + KEEPER_STOP_MS;
	k->stopping = true;
	if (k->pid > 0)
		kill(k->pid, SIGTERM);
}

/* Returns whether the server has ended; @ret_status as of waitpid(2). */
static bool watch(struct keeper *k, int *ret_status)
{
	struct pollfd fds[] = {
		{ .fd = k->signal_fd, .events = POLLIN },
		{ .fd = k->pidfd, .events = POLLIN },
		{ .fd = k->sock, .events = POLLIN },
	};
	struct signalfd_siginfo info;

	poll(fds, 3, k->stopping ? 1000 : -1);
	if (fds[0].revents && read(k->signal_fd, &info, sizeof(info)) == sizeof(info))
		stop(k);
	if (k->stopping && now_ms() > k->kill_at)
		kill(k->pid, SIGKILL);
	if (fds[2].revents)
		read_message(k);
	if (!fds[1].revents || waitpid(k->pid, ret_status, 0) != k->pid)
		return false;
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
static int judge_end(struct keeper *k, int status)
{
	if (!k->live) {
		/* It has said why, except when it was killed. */
		if (WIFSIGNALED(status))
			log_line(LOG_ERROR, "the server was killed by signal %d while starting",
				 WTERMSIG(status));
		return EXIT_FAILURE;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
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
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_OTHER_VAULT)
		k->old_program = true;
	return -1;
}

/* Servers that die before they are live are started ever more slowly. */
static void pause_before_next(struct keeper *k)
{
	struct pollfd p = { .fd = k->signal_fd, .events = POLLIN };

	if (k->ready)
		return;
	k->pause_ms = k->pause_ms ? k->pause_ms * 2 : KEEPER_PAUSE_MIN_MS;
	if (k->pause_ms > KEEPER_PAUSE_MAX_MS)
		k->pause_ms = KEEPER_PAUSE_MAX_MS;
	if (poll(&p, 1, (int)k->pause_ms) > 0)
		k->stopping = true;
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
		if (ret >= 0)
			return ret;
		do {
			pause_before_next(k);
			if (k->stopping)
				return EXIT_FAILURE; /* del takes the device itself */
			ret = start_server(k);
		} while (ret && log_error(ret, "start a successor"));
	}
}

static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	/* One for each client and buffer; 2^20 is the kernel's own default bound. */
	limit.rlim_cur = limit.rlim_max = limit.rlim_max > (1U << 20) ? limit.rlim_max : 1U << 20;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int keeper_run(const struct keeper_start *start)
{
	struct keeper k = { .start = start, .sock = -1, .pidfd = -1 };
	sigset_t set;
	int ret;

	note_program(&k);
	raise_fd_limit();
	spare_keeper(&k);
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
	close(k.signal_fd);
	return ret;
}
