/* SPDX-License-Identifier: MIT */
/*
 * doctor_program.c - see doctor.h.
 *
 * What the library would do in a program only the library knows: its allocator's place, the
 * profile, limits.  So the program is loaded with it, and ends before its first own instruction
 * (UBLKZC_PROBE).  Only what the loader itself says it would preload into is started at all:
 * anything else would run.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor.h"
#include "run_program.h"
#include "run_report.h"

#define PROBE_MS 20000

/* ---- starting it ---- */

static void exec_quietly(const char *program, int out, const char *variable)
{
	char *argv[] = { (char *)program, NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setenv(variable, "1", 1);
	dup2(null, STDIN_FILENO);
	dup2(out >= 0 ? out : null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	execvp(program, argv);
	_exit(RUN_CANNOT_EXECUTE);
}

static bool wait_for(pid_t pid)
{
	struct pollfd gone = { .events = POLLIN };
	bool in_time;

	gone.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	in_time = gone.fd < 0 || poll(&gone, 1, PROBE_MS) != 0;
	if (!in_time)
		kill(pid, SIGKILL);
	if (gone.fd >= 0)
		close(gone.fd);
	waitpid(pid, NULL, 0);
	return in_time;
}

/* Would the loader preload the library?  It says what it would load, and ends. */
static bool loader_agrees(const char *program, const char *library)
{
	char line[4096];
	bool found = false;
	int fds[2];
	FILE *out;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return false;
	pid = fork();
	if (pid == 0)
		exec_quietly(program, fds[1], "LD_TRACE_LOADED_OBJECTS");
	close(fds[1]);
	out = fdopen(fds[0], "r");
	while (out && fgets(line, sizeof(line), out))
		found |= strstr(line, library) != NULL;
	if (out)
		fclose(out);
	if (pid > 0)
		wait_for(pid);
	return found;
}

static bool start_probe(const char *program)
{
	pid_t pid = fork();

	if (pid == 0)
		exec_quietly(program, -1, "UBLKZC_PROBE");
	return pid > 0 && wait_for(pid);
}

/* ---- what came of it ---- */

static void say_report(struct doctor *d, const char *program, const struct report *r)
{
	struct finding *f;

	if (!r->off_reason[0]) {
		doctor_say(d, "program", GRADE_OK, "%.80s: captured are %s", program, r->captures);
		return;
	}
	f = doctor_say(d, "program", GRADE_BAD, "%.80s: libublkzc.so stays off: %.140s", program,
		       r->off_reason);
	finding_next(f, "ublkzc attach --pid PID serves memory that it shares itself");
}

static void probe(struct doctor *d, const char *program, const char *library)
{
	struct report_file *file;

	if (!loader_agrees(program, library)) {
		finding_next(doctor_say(d, "program", GRADE_BAD,
					"%.100s: the loader does not preload %.80s into it",
					program, library),
			     "LD_PRELOAD=%s ldd %s, and is the library readable for its user?",
			     library, program);
		return;
	}
	if (run_report_make())
		return;
	start_probe(program);
	file = run_report_take();
	if (file && file->next)
		say_report(d, program, &file->slots[0]);
	else
		doctor_say(d, "program", GRADE_NOTE,
			   "%.100s: could not be tried (it does not start here)", program);
	free(file);
}

void doctor_program(struct doctor *d, const char *program)
{
	char interpreter[RUN_PATH_MAX];
	char library[RUN_PATH_MAX];
	const char *why;
	struct finding *f;

	if (run_program_library(NULL, library, sizeof(library)))
		return;
	if (run_program_script(program, interpreter)) {
		doctor_say(d, "program", GRADE_OK, "%.80s is a script for %.80s", program,
			   interpreter);
		program = interpreter;
	}
	why = run_program_obstacle(program);
	if (why) {
		f = doctor_say(d, "program", GRADE_BAD, "%.80s: %s", program, why);
		finding_next(f, "ublkzc attach --pid PID serves memory that it shares itself");
		return;
	}
	if (run_program_preload(library) == 0)
		probe(d, program, library);
}

/* ---- one that runs ---- */

static bool has_library(pid_t pid)
{
	char path[64];
	char *line = NULL;
	size_t size = 0;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	while (f && !found && getline(&line, &size, f) >= 0)
		found = strstr(line, "/libublkzc.so") != NULL;
	free(line);
	if (f)
		fclose(f);
	return found;
}

void doctor_process(struct doctor *d, pid_t pid)
{
	char link[64], path[RUN_PATH_MAX];
	struct finding *f;
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0) {
		f = doctor_say(d, "process", GRADE_BAD, "process %d: %s", (int)pid,
			       errno == ENOENT ? "there is none" : strerror(errno));
		finding_next(f, errno == EACCES ? "ask as root, or as its user" : "ps -e");
		return;
	}
	path[len] = '\0';
	if (has_library(pid)) {
		doctor_say(d, "process", GRADE_OK, "%d (%.120s) runs with libublkzc.so", (int)pid,
			   path);
		return;
	}
	f = doctor_say(d, "process", GRADE_NOTE,
		       "%d (%.120s) runs without libublkzc.so: what it shares itself can be "
		       "attached now, private memory with a restart only",
		       (int)pid, path);
	finding_next(f, "ublkzc attach --pid %d", (int)pid);
	doctor_program(d, path);
}
