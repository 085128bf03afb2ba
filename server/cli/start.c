/* SPDX-License-Identifier: MIT */
/*
 * start.c - see start.h.
 *
 * In the background the keeper is forked off, and the verb waits on a pipe until it says that the
 * device is live, or is gone.  Keeper and server keep the caller's stderr until then, so
 * that what went wrong is seen, and log to a file from there on.
 */
#include "start.h"

#include <bsd/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "server/device/device.h"
#include "server/life/arguments.h"
#include "server/life/caller.h"
#include "server/life/keeper.h"
#include "server/life/logging.h"
#include "server/life/reclaim.h"
#include "server/life/state.h"
#include "server/targets/engines.h"
#include "sizes.h"
#include "verbs.h"

#define ADD_PATIENCE_MS 30000

static int say_device(unsigned int device)
{
	printf("/dev/ublkb%u\n", device);
	return fflush(stdout) || ferror(stdout) ? -errno : 0;
}

/* ---- servers, alone or with a keeper ---- */

static void leave_terminal(unsigned int device)
{
	char path[64];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int log;

	snprintf(path, sizeof(path), STATE_DIR "/ublkb%u.log", device);
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
	}
	dup2(log >= 0 ? log : null, 2);
	logging_to_file();
	if (chdir("/") < 0)
		log_line(LOG_WARN, "chdir /: errno %d", errno);
}

/* The device is live: whoever waits for it is told. */
static void tell(const struct start *s, unsigned int device)
{
	int ret = arguments_save(device, s->argc, s->argv);
	ssize_t n;

	if (ret)
		log_error(ret, "keep the command line for ublkzc recover");
	if (!s->background) {
		say_device(device);
		manager_tell("READY=1");
		return;
	}
	leave_terminal(device);
	do
		n = write(s->pipe_fd, &device, sizeof(device));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		log_line(LOG_WARN, "ublkzc add went away before the device was live");
	close(s->pipe_fd);
}

/* ps and top show what each process is for. */
void start_title(const struct start *s, unsigned int device)
{
	setproctitle("/dev/ublkb%u, %s %s", device, s->options.engine_name,
		     s->options.path ? s->options.path : "");
}

static void in_keeper(unsigned int device, void *arg)
{
	setproctitle("keeper of /dev/ublkb%u", device);
	tell(arg, device);
}

static void in_server(unsigned int device, void *arg)
{
	const struct start *s = arg;

	start_title(s, device);
	if (s->options.recovery == RECOVERY_NONE)
		tell(s, device);
	else if (s->background)
		leave_terminal(device);
}

static int first_server(struct vault *v, void *arg)
{
	struct start *s = arg;
	int ret;

	if (s->recovers >= 0)
		ret = device_recover(&s->options, v, s->recovers, in_server, s);
	else
		ret = device_serve(&s->options, v, in_server, s);
	return ret ? EXIT_FAILURE : 0;
}

/* What our caller had open, a shell's lock perhaps, is not to stay so until del. */
static void leave_descriptors(struct start *s)
{
	int first = STDERR_FILENO + 1;

	if (s->background && s->pipe_fd != first && dup3(s->pipe_fd, first, O_CLOEXEC) == first)
		s->pipe_fd = first;
	if (s->background)
		first = s->pipe_fd + 1;
	first += (int)s->nr_left;
	close_range((unsigned int)first, ~0U, 0);
}

int start_run(struct start *s)
{
	struct keeper_start keeper = {
		.serve = first_server,
		.ready = in_keeper,
		.arg = s,
		.argc = s->argc,
		.argv = s->argv,
		.times = KEEPER_TIMES,
		.left = s->left,
		.nr_left = s->nr_left,
	};
	struct vault none = VAULT_NONE;

	leave_descriptors(s);
	caller_lift_limits();
	if (s->options.recovery == RECOVERY_NONE)
		return first_server(&none, s);
	reclaim_prepare("the keeper");
	return keeper_run(&keeper);
}

/* A driver that is stuck makes everybody wait who adds a device. */
static void say_when_it_takes_long(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, ADD_PATIENCE_MS) == 0)
		log_line(LOG_WARN,
			 "the driver has not made the device in %d seconds; waiting "
			 "(the kernel's log may say why)",
			 ADD_PATIENCE_MS / 1000);
}

/*
 * A new device that its owner does not learn of would stay for ever; who recovers one knows it.
 * Returns the exit status.
 */
static int hand_over(const struct start *s, unsigned int device)
{
	int ret;

	signal(SIGPIPE, SIG_IGN); /* a reader that went away is an error as any other */
	ret = say_device(device);
	if (!ret)
		return 0;
	clearerr(stdout); /* said here, not once more at the end */
	log_error(ret, "/dev/ublkb%u is %s its name cannot be written to standard output", device,
		  s->recovers >= 0 ? "served, but" : "removed, as");
	if (s->recovers < 0)
		del_unless_in_use(device);
	return EXIT_FAILURE;
}

int start_in_background(struct start *s)
{
	unsigned int device;
	int fds[2];
	int status;
	pid_t pid;
	ssize_t n;

	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		log_error(-errno, "start the server");
		return EXIT_FAILURE;
	}
	if (pid == 0) {
		close(fds[0]);
		setsid();
		s->background = true;
		s->pipe_fd = fds[1];
		return start_run(s);
	}
	close(fds[1]);
	say_when_it_takes_long(fds[0]);
	while ((n = read(fds[0], &device, sizeof(device))) < 0 && errno == EINTR)
		;
	if (n == sizeof(device))
		return hand_over(s, device);
	/* The server has said why, except when it was killed. */
	if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status))
		log_line(LOG_ERROR, "the server was killed by signal %d while starting",
			 WTERMSIG(status));
	return EXIT_FAILURE;
}

/*
 * Make the path @word, which is a word of the command line or the end of one, absolute in it.
 * Returns where it is then; NULL: no memory.
 */
static const char *make_absolute(struct start *s, const char *word)
{
	char *path = arguments_absolute(word);
	char *whole = NULL;
	int before = 0;

	if (!path)
		return NULL;
	for (int i = 1; i < s->argc; i++) {
		if (word < s->argv[i] || word > s->argv[i] + strlen(s->argv[i]))
			continue;
		before = (int)(word - s->argv[i]);
		if (asprintf(&whole, "%.*s%s", before, s->argv[i], path) < 0)
			whole = NULL;
		else
			s->argv[i] = whole;
		break;
	}
	free(path);
	return whole ? whole + before : NULL;
}

/* An option of the engine that takes a FILE; its value. */
static const char *file_of(const struct ublkzc_engine *engine, const char *setting)
{
	size_t len = strcspn(setting, "=");
	const struct ublkzc_option *o = engine_option(engine, setting, len);

	return o && strcmp(o->value, "FILE") == 0 ? setting + len + 1 : NULL;
}

/* Paths in the command line outlive our working directory. */
static int keep_absolute(struct start *s)
{
	struct options *o = &s->options;

	if (o->path && !(o->path = make_absolute(s, o->path)))
		return log_error(-ENOMEM, "start");
	if (strchr(o->engine_name, '/') && !(o->engine_name = make_absolute(s, o->engine_name)))
		return log_error(-ENOMEM, "start");
	for (unsigned int i = 0; i < o->nr_settings; i++) {
		const char *file = file_of(o->engine, o->settings[i]);
		size_t before = file ? (size_t)(file - o->settings[i]) : 0;

		if (file && !(file = make_absolute(s, file)))
			return log_error(-ENOMEM, "start");
		if (file)
			o->settings[i] = file - before;
	}
	return 0;
}

int start_prepare(struct start *s, const struct command *command, int argc, char **argv,
		  int *ret_status)
{
	int ret;

	*s = (struct start){ .argc = argc, .argv = argv, .recovers = -1 };
	ret = add_options_parse(command, argc, argv, &s->options);
	*ret_status = ret ? command_status(ret) : 0;
	if (ret == 0 && s->options.verbose)
		log_init("ublkzc", LOG_DEBUG);
	if (!ret && keep_absolute(s)) {
		*ret_status = EXIT_FAILURE;
		ret = -ENOMEM;
	}
	return ret;
}

int start_possible(const struct command *command, const struct start *s)
{
	int ret = add_options_possible(command, &s->options);

	return ret == LINE_BAD ? EXIT_USAGE : ret ? EXIT_FAILURE : 0;
}

int start_prepare_again(struct start *s, unsigned int device)
{
	char **argv;
	int status;
	int argc;
	int ret = arguments_load(device, &argc, &argv);

	if (ret) {
		log_error(ret, "what the server of device %u was is not known", device);
		return ret;
	}
	return start_prepare(s, &command_add, argc, argv, &status) ? -EINVAL : 0;
}

int start_recover(unsigned int device, bool foreground)
{
	struct start s;

	if (start_prepare_again(&s, device))
		return EXIT_FAILURE;
	s.recovers = (int)device;
	return foreground ? start_run(&s) : start_in_background(&s);
}
