/* SPDX-License-Identifier: MIT */
/* run_program.c - see run_program.h. */
#include "run_program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/log.h"

#define LIBRARY "libublkzc.so"

/* The build tree's, or the installed one. */
static int find_library(char *ret, size_t size)
{
	static const char *const places[] = { "%s/../preload/" LIBRARY, UBLKZC_LIBDIR "/" LIBRARY };
	char self[4096];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[len > 0 ? len : 0] = '\0';
	if (strrchr(self, '/'))
		*strrchr(self, '/') = '\0';
	for (int i = 0; i < 2; i++) {
		char path[sizeof(self) + 64];
		char *real;

		if (i == 0)
			snprintf(path, sizeof(path), places[0], self);
		else
			snprintf(path, sizeof(path), "%s", places[1]);
		real = realpath(path, NULL);
		if (!real)
			continue;
		snprintf(ret, size, "%s", real);
		free(real);
		return 0;
	}
	return log_error(-ENOENT, LIBRARY ": neither beside this program nor in %s (--library)",
			 UBLKZC_LIBDIR);
}

int run_program_library(const char *library, char *ret, size_t size)
{
	if (!library)
		return find_library(ret, size);
	if (access(library, R_OK) < 0)
		return log_error(-errno, "--library %s", library);
	snprintf(ret, size, "%s", library);
	return 0;
}

/* In front of what is there, so that it sees the program's own calls. */
int run_program_preload(const char *library)
{
	const char *old = getenv("LD_PRELOAD");
	char found[RUN_PATH_MAX];
	char *value;
	int ret = run_program_library(library, found, sizeof(found));

	if (ret)
		return ret;
	if (asprintf(&value, "%s%s%s", found, old && *old ? ":" : "", old ? old : "") < 0)
		return log_error(-ENOMEM, "LD_PRELOAD");
	setenv("LD_PRELOAD", value, 1);
	free(value);
	return 0;
}

/* ---- running ---- */

/* What a terminal sends goes to the program too, without us. */
static bool is_forwarded(int signal)
{
	return signal == SIGTERM || signal == SIGHUP || signal == SIGUSR1 || signal == SIGUSR2 ||
	       signal == SIGINT || signal == SIGQUIT || signal == SIGWINCH;
}

static void watched_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	for (int signal = 1; signal < SIGRTMIN; signal++)
		if (is_forwarded(signal))
			sigaddset(set, signal);
}

static int wait_for(pid_t pid, const sigset_t *set, run_tick_fn *tick, void *arg)
{
	const struct timespec second = { .tv_sec = 1 };
	siginfo_t info;
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		int signal = sigtimedwait(set, &info, tick ? &second : NULL);

		if (signal > 0 && signal != SIGCHLD && info.si_code != SI_KERNEL)
			kill(pid, signal);
		if (tick)
			tick(arg);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int run_program(char **argv, run_tick_fn *tick, void *arg)
{
	const struct sigaction usual = { .sa_handler = SIG_DFL };
	struct sigaction inherited;
	sigset_t set, old;
	pid_t pid;
	int status;

	watched_signals(&set);
	sigprocmask(SIG_BLOCK, &set, &old);
	/* Ignored, as some parents leave it, the kernel would reap without a word. */
	sigaction(SIGCHLD, &usual, &inherited);
	pid = fork();
	if (pid == 0) {
		sigaction(SIGCHLD, &inherited, NULL);
		sigprocmask(SIG_SETMASK, &old, NULL);
		execvp(argv[0], argv);
		status = errno == ENOENT ? RUN_NOT_FOUND : RUN_CANNOT_EXECUTE;
		log_error(-errno, "%s", argv[0]);
		_exit(status);
	}
	if (pid < 0) {
		log_error(-errno, "fork");
		return RUN_CANNOT_EXECUTE;
	}
	return wait_for(pid, &set, tick, arg);
}

/* ---- why nothing happened ---- */

static int open_in_path(const char *program)
{
	const char *path = getenv("PATH");
	char full[4096];

	if (strchr(program, '/') || !path)
		return open(program, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	for (size_t len; *path; path += len + (path[len] == ':')) {
		int fd;

		len = strcspn(path, ":");
		snprintf(full, sizeof(full), "%.*s/%s", (int)len, path, program);
		fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0)
			return fd;
	}
	return -1;
}

/* The loader that the program asks for, "" if there is none; false: it cannot be told. */
static bool loader_of(int fd, const Elf64_Ehdr *elf, char *ret, size_t size)
{
	for (unsigned int i = 0; i < elf->e_phnum; i++) {
		Elf64_Phdr segment;
		size_t len;

		if (pread(fd, &segment, sizeof(segment),
			  (off_t)(elf->e_phoff + i * (uint64_t)elf->e_phentsize)) !=
		    (ssize_t)sizeof(segment))
			return false;
		if (segment.p_type != PT_INTERP)
			continue;
		len = segment.p_filesz < size ? segment.p_filesz : size - 1;
		memset(ret, 0, size);
		return pread(fd, ret, len, (off_t)segment.p_offset) == (ssize_t)len;
	}
	ret[0] = '\0';
	return true;
}

/* Why nothing can be preloaded into what is open as @fd; NULL: nothing speaks against it. */
static const char *judge(int fd)
{
	char loader[256];
	Elf64_Ehdr elf = { 0 };
	struct stat st;

	if (fstat(fd, &st) == 0 && (st.st_mode & (S_ISUID | S_ISGID)))
		return "it is setuid or setgid, so the loader ignores LD_PRELOAD";
	if (fgetxattr(fd, "security.capability", NULL, 0) > 0)
		return "it has file capabilities, so the loader ignores LD_PRELOAD";
	if (pread(fd, &elf, sizeof(elf), 0) != (ssize_t)sizeof(elf) ||
	    memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0)
		return "it left no report (a script whose interpreter is static, or that cleared "
		       "its environment?)";
	if (elf.e_ident[EI_CLASS] != ELFCLASS64)
		return "it is a 32-bit program, and " LIBRARY " is for 64 bits";
	if (!loader_of(fd, &elf, loader, sizeof(loader)))
		return NULL;
	if (!loader[0])
		return "it is linked statically, so nothing can be preloaded (ublkzc attach "
		       "serves what memory it shares)";
	if (strstr(loader, "ld-musl"))
		return "its C library is musl, and " LIBRARY " is for glibc (ublkzc attach serves "
		       "what memory it shares)";
	return NULL;
}

const char *run_program_obstacle(const char *program)
{
	const char *why;
	int fd = open_in_path(program);

	if (fd < 0)
		return strerrordesc_np(errno);
	why = judge(fd);
	close(fd);
	return why;
}

const char *run_program_why_not(const char *program)
{
	const char *why;
	int fd = open_in_path(program);

	if (fd < 0)
		return "it could not be run";
	why = judge(fd);
	close(fd);
	return why ? why
		   : "it left no report: it cleared its environment, or its C library is "
		     "not glibc";
}

bool run_program_script(const char *program, char interpreter[RUN_PATH_MAX])
{
	int fd = open_in_path(program);
	ssize_t len;
	char *begin;

	if (fd < 0)
		return false;
	len = pread(fd, interpreter, RUN_PATH_MAX - 1, 0);
	close(fd);
	if (len < 3 || memcmp(interpreter, "#!", 2) != 0)
		return false;
	interpreter[len] = '\0';
	begin = interpreter + 2 + strspn(interpreter + 2, " \t");
	begin[strcspn(begin, " \t\n")] = '\0';
	memmove(interpreter, begin, strlen(begin) + 1);
	return interpreter[0] != '\0';
}
