/* SPDX-License-Identifier: MIT */
/*
 * failcall.c - run a command of which one system call fails.
 *
 *   failcall START N[+] REPORT COMMAND [ARGUMENT...]
 *
 * From the first system call with the name START on, those of COMMAND and of all that it
 * starts are counted, and the N-th fails, with an error that it can have when a machine is
 * out of something; with + so do all of the same name from then on, unless it is an error
 * after which one tries again; what went wrong can still be written to standard error.  When
 * COMMAND has ended a line is put into the file REPORT: its exit status, and the call that
 * failed, or "none" when there were fewer.  What COMMAND leaves running runs on, and this
 * program with it.
 *
 * By seccomp_unotify(2): whatever is called, by which library ever, comes by here.  What
 * gives something back (close, munmap, unlink ...) is not counted: nobody can undo what
 * cannot be undone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What each call fails with; others with ENOMEM. */
static const struct {
	int error;
	const char *names; /* between spaces */
} errors[] = {
	{ EMFILE,
	  " open openat openat2 socket socketpair eventfd2 signalfd4 epoll_create1 memfd_create "
	  "pipe2 dup dup2 dup3 accept4 pidfd_open timerfd_create inotify_init1 fcntl " },
	{ ENOSPC,
	  " mkdir mkdirat ftruncate fallocate write writev pwrite64 rename renameat renameat2 "
	  "link linkat symlink bind " },
	{ EAGAIN, " clone clone3 fork vfork io_uring_enter mlockall " },
	{ EINTR, " read recvmsg recvfrom poll ppoll epoll_wait epoll_pwait wait4 waitid " },
	{ ENOBUFS, " sendmsg sendto " },
	{ ENOLCK, " flock " },
	{ EPERM,
	  " prctl capset capget setrlimit prlimit64 setsid setsockopt chmod fchmod chown fchown "
	  "fchmodat fchownat setpriority sched_setscheduler " },
	{ EIO, " ioctl fsync fdatasync pread64 " },
};

/*
 * Cannot fail, or only give back; or the C library has no way to say that they failed, and
 * ends the program or waits for ever.
 */
static const char *const never[] = {
	"exit",
	"exit_group",
	"close",
	"close_range",
	"munmap",
	"unlink",
	"unlinkat",
	"rmdir",
	"umount2",
	"futex",
	"futex_wake",
	"futex_wait",
	"rt_sigreturn",
	"rt_sigaction",
	"rt_sigprocmask",
	"restart_syscall",
	"sched_yield",
	"nanosleep",
	"clock_nanosleep",
	"kill",
	"tgkill",
	"execve",
	"getpid",
	"getppid",
	"gettid",
	"getuid",
	"geteuid",
	"getgid",
	"getegid",
	"umask",
	"set_tid_address",
	"set_robust_list",
	"rseq",
	"arch_prctl",
	"sigaltstack",
	"madvise",
	"clock_gettime",
	"uname",
	"sync",
	"getpgrp",
	"getpgid",
	"getsid",
	"shutdown",
};

static struct {
	int listener;
	int start;  /* number of the call from which is counted */
	long count; /* < 0: not yet */
	long target;
	bool all;    /* and those of the same name from then on */
	int failing; /* number of the call that failed; -1: none yet */
	char failed[128];
	const char *report;
	char **argv;
	pid_t pid;
	int error;
} f = { .listener = -1, .count = -1, .failing = -1 };

/* ---- the command, in a thread's child: only that thread is filtered ---- */

static int filter(void)
{
	enum { NR = sizeof(never) / sizeof(never[0]) };
	struct sock_filter code[NR + 3];
	struct sock_fprog prog = { .filter = code };
	unsigned short n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (unsigned int i = 0; i < NR; i++) {
		int nr = seccomp_syscall_resolve_name(never[i]);

		if (nr >= 0)
			code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
								 (unsigned int)nr, 0, 0);
	}
	/* Each found one jumps behind the notification. */
	for (unsigned short i = 1; i < n; i++)
		code[i].jt = (unsigned char)(n - i);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	prog.len = n;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			    &prog);
}

static void *run_command(void *arg)
{
	int listener;

	(void)arg;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	listener = filter();
	if (listener < 0)
		f.error = errno;
	__atomic_store_n(&f.listener, listener < 0 ? -2 : listener, __ATOMIC_RELEASE);
	if (listener < 0)
		return NULL;
	f.pid = vfork();
	if (f.pid == 0) {
		execvp(f.argv[0], f.argv);
		_exit(127);
	}
	return NULL;
}

/* ---- the system calls ---- */

static int error_of(const char *name)
{
	char spaced[64];

	snprintf(spaced, sizeof(spaced), " %s ", name);
	for (unsigned int i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (strstr(errors[i].names, spaced))
			return errors[i].error;
	return ENOMEM;
}

/* Pipes and the like are never full in that sense, but a signal may come. */
static bool is_file(const struct seccomp_notif *call)
{
	char path[64], target[16] = "";

	snprintf(path, sizeof(path), "/proc/%u/fd/%d", call->pid, (int)call->data.args[0]);
	return readlink(path, target, sizeof(target) - 1) > 0 && target[0] == '/';
}

/* Where a program would say that the others fail is not full for their sake. */
static bool is_errors(const struct seccomp_notif *call)
{
	return call->data.nr == SYS_write && call->data.args[0] == STDERR_FILENO;
}

static void note(const struct seccomp_notif *call, const char *name, int error)
{
	char path[64], comm[32] = "?";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%u/comm", call->pid);
	file = fopen(path, "re");
	if (file && fscanf(file, "%31s", comm) != 1)
		strcpy(comm, "?");
	if (file)
		fclose(file);
	snprintf(f.failed, sizeof(f.failed), "%s(0x%llx, 0x%llx) of %s: %s", name,
		 (unsigned long long)call->data.args[0], (unsigned long long)call->data.args[1],
		 comm, strerrorname_np(error));
}

static void decide(const struct seccomp_notif *call, struct seccomp_notif_resp *answer)
{
	char *name;

	answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	if (f.count < 0 && call->data.nr == f.start)
		f.count = 0;
	if (f.count < 0 || f.target < 0 ||
	    (++f.count != f.target && !(f.all && call->data.nr == f.failing && !is_errors(call))))
		return;
	name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call->data.nr);
	answer->flags = 0;
	answer->error = -error_of(name);
	if (strcmp(name, "write") == 0 && !is_file(call))
		answer->error = -EINTR;
	if (f.failing < 0)
		note(call, name, -answer->error);
	f.failing = call->data.nr;
	if (answer->error == -EINTR || answer->error == -EAGAIN)
		f.all = false;
	/* brk(2) of the kernel says the old end when it cannot move it, or 0. */
	if (call->data.nr == SYS_brk)
		answer->error = 0;
	free(name);
}

static void serve(struct seccomp_notif *call, struct seccomp_notif_resp *answer,
		  const struct seccomp_notif_sizes *sizes)
{
	memset(call, 0, sizes->seccomp_notif);
	if (ioctl(f.listener, SECCOMP_IOCTL_NOTIF_RECV, call) < 0)
		return;
	memset(answer, 0, sizes->seccomp_notif_resp);
	answer->id = call->id;
	decide(call, answer);
	ioctl(f.listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
}

/* ---- how it went ---- */

static void report(int status)
{
	char next[4096];
	FILE *file;

	snprintf(next, sizeof(next), "%s.next", f.report);
	file = fopen(next, "we");
	if (!file)
		return;
	fprintf(file, "%d %s\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
		f.failed[0] ? f.failed : "none");
	fclose(file);
	rename(next, f.report);
}

static void watch(void)
{
	struct seccomp_notif_sizes sizes;
	struct seccomp_notif *call;
	struct seccomp_notif_resp *answer;
	struct pollfd p = { .fd = f.listener, .events = POLLIN };
	bool told = false;
	int status;

	syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes);
	call = malloc(sizes.seccomp_notif);
	answer = malloc(sizes.seccomp_notif_resp);
	while (call && answer && !(p.revents & POLLHUP)) {
		if (poll(&p, 1, told ? -1 : 10) > 0 && (p.revents & POLLIN))
			serve(call, answer, &sizes);
		if (!told && f.pid > 0 && waitpid(f.pid, &status, WNOHANG) == f.pid) {
			f.target = -1; /* it is too late now */
			report(status);
			told = true;
		}
	}
	if (!told && waitpid(f.pid, &status, 0) == f.pid)
		report(status);
	free(call);
	free(answer);
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc < 5 || (f.start = seccomp_syscall_resolve_name(argv[1])) < 0) {
		fprintf(stderr, "usage: failcall START N REPORT COMMAND [ARGUMENT...]\n");
		return 2;
	}
	f.target = strtol(argv[2], NULL, 10);
	f.all = strchr(argv[2], '+') != NULL;
	f.report = argv[3];
	f.argv = argv + 4;
	if (pthread_create(&thread, NULL, run_command, NULL))
		return 1;
	while (__atomic_load_n(&f.listener, __ATOMIC_ACQUIRE) == -1)
		usleep(1000);
	if (f.listener < 0) {
		fprintf(stderr, "failcall: seccomp: %s\n", strerror(f.error));
		return 1;
	}
	watch();
	return 0;
}
