/* SPDX-License-Identifier: MIT */
/*
 * verb_del.c - stop servers and remove devices, also those whose server died.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/device/ctrl.h"
#include "server/life/holders.h"
#include "server/life/lock.h"
#include "server/life/state.h"
#include "admin.h"
#include "command.h"
#include "sizes.h"
#include "verbs.h"

#define DEL_DEADLINE_MS 40000 /* more than a keeper gives its server */
#define NUMBER_DEADLINE_MS 2000
#define ANSWER_MS 30000 /* for the control thread: a busy machine is no reason to kill it */
#define DYING_MS 2000	/* of a server and keeper that were killed */
#define WAIT_MAX 86400 /* seconds */
#define ASK_TIMES 20 /* a tenth of a second between them */

static bool driver_has(unsigned int device)
{
	struct ublksrv_ctrl_dev_info info;
	struct ctrl ctrl;
	bool has;

	if (ctrl_open(&ctrl))
		return false;
	has = ctrl_get_info(&ctrl, device, &info) == 0;
	ctrl_close(&ctrl);
	return has;
}

/* The disk goes at once; its number when the last who has it open closes it. */
static void wait_for_number(unsigned int device)
{
	struct timespec pause = { .tv_nsec = 10000000 };

	for (int ms = 0; ms < NUMBER_DEADLINE_MS; ms += 10) {
		if (!driver_has(device))
			return;
		nanosleep(&pause, NULL);
	}
	log_line(LOG_WARN,
		 "/dev/ublkb%u is removed, but somebody still has it open or mounted; number "
		 "%u is free when that ends",
		 device, device);
}

static bool disk_is_there(unsigned int device)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/ublkb%u", device);
	return access(path, F_OK) == 0;
}

static bool file_is_there(unsigned int device)
{
	char path[64];

	snprintf(path, sizeof(path), STATE_DIR "/ublkb%u.stat", device);
	return access(path, F_OK) == 0;
}

/*
 * Ask the server to stop.  -ESRCH: nobody serves; -EAGAIN: it is just starting, ending or being
 * replaced; -ETIMEDOUT: it did not answer and was killed.  Its successor can be asked then.
 */
static int ask_to_stop(unsigned int device)
{
	struct wire_request req;
	struct wire_reply reply;
	int fd = admin_connect(device);
	int ret;

	if (fd < 0)
		return fd == -ECONNREFUSED || fd == -ENOENT ? -EAGAIN : fd;
	wire_request_init(&req, WIRE_STOP, 1);
	ret = admin_ask_on(fd, &req, ANSWER_MS, &reply);
	if (ret == -ETIMEDOUT) {
		log_line(LOG_WARN, "/dev/ublkb%u: its server does not answer, and is killed",
			 device);
		admin_kill_server(fd); /* it may be dead already */
	}
	close(fd);
	if (ret == -EPIPE || ret == -ECONNRESET)
		return -EAGAIN;
	return ret ? ret : reply.status;
}

static int ask_until_it_stops(unsigned int device, int lock)
{
	struct timespec pause = { .tv_nsec = 100000000 };
	int ret = -ESRCH;

	for (int i = 0; i < ASK_TIMES; i += ret == -ETIMEDOUT ? ASK_TIMES / 2 : 1) {
		/* A successor reads what its predecessor was sent. */
		if (lock_held(lock) == 0)
			return ret == -ESRCH ? ret : 0;
		ret = ask_to_stop(device);
		if (ret != -EAGAIN && ret != -ETIMEDOUT)
			return ret;
		nanosleep(&pause, NULL);
	}
	return -ESRCH; /* the driver has to be asked */
}

/* Ask the server to stop and wait until it and its keeper are gone.  -ESRCH: it is dead. */
static int stop_server(unsigned int device)
{
	int lock = lock_open(device);
	int ret;

	if (lock < 0)
		return lock == -ENOENT ? -ESRCH : lock;
	ret = ask_until_it_stops(device, lock);
	if (!ret)
		ret = lock_wait(lock, DEL_DEADLINE_MS);
	close(lock);
	/* Its server was dead just then: the device is still there. */
	return ret ? ret : disk_is_there(device) ? -ESRCH : 0;
}

/*
 * What may wait for a driver that does not answer any more is done by a child, which is
 * given up after @ms.  Returns its exit status; -ETIMEDOUT.
 */
static int in_child(int (*work)(unsigned int device), unsigned int device, int ms)
{
	struct pollfd gone = { .events = POLLIN };
	pid_t pid = fork();
	int status = 0;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(work(device));
	gone.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (gone.fd >= 0 && poll(&gone, 1, ms) == 0) {
		kill(pid, SIGKILL);
		close(gone.fd);
		return -ETIMEDOUT;
	}
	waitpid(pid, &status, 0);
	if (gone.fd >= 0)
		close(gone.fd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

/* No server: the driver itself must be asked.  0 or an errno, positive. */
static int ask_driver_to_remove(unsigned int device)
{
	struct ublksrv_ctrl_dev_info info;
	struct ctrl ctrl;
	int ret = ctrl_open(&ctrl);

	if (ret)
		return -ret;
	ret = ctrl_get_info(&ctrl, device, &info);
	if (!ret)
		ret = ctrl_stop_dev(&ctrl, device);
	else if (ret == -ENODEV)
		return ENODEV;
	if (!ret || ret == -ENODEV)
		ret = ctrl_del_dev(&ctrl, device);
	return -ret;
}

static int remove_orphan(unsigned int device)
{
	int ret = in_child(ask_driver_to_remove, device, DEL_DEADLINE_MS);

	return ret > 0 ? -ret : ret;
}

/*
 * Mounted, swapped to, or below another block device or server: open(2) with O_EXCL tells.  What
 * the page cache still holds is written back while somebody serves it: the driver fails it when it
 * is stopped.
 */
static int look_and_flush(unsigned int device)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/ublkb%u", device);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return errno == EBUSY ? EBUSY : 0;
	return fsync(fd) < 0 ? errno : 0;
}

/* A device that nobody serves is removed all the same: nothing can be written back. */
static bool in_use(unsigned int device)
{
	int ret = in_child(look_and_flush, device, DEL_DEADLINE_MS);

	if (ret && ret != EBUSY)
		log_line(LOG_WARN, "/dev/ublkb%u: what the page cache holds cannot be written: %s",
			 device, strerror(ret < 0 ? -ret : ret));
	return ret == EBUSY;
}

static int refuse(unsigned int device)
{
	struct stat st = { 0 };
	char holders[256];
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkb%u", device);
	stat(path, &st);
	holders_describe(st.st_rdev, holders, sizeof(holders));
	return log_error(-EBUSY,
			 "%s is in use: %s (--force removes it all the same, and loses what was "
			 "not written back)",
			 path, holders);
}

static bool is_served(unsigned int device)
{
	int lock = lock_open(device);
	bool held = lock >= 0 && lock_held(lock) == 1;

	if (lock >= 0)
		close(lock);
	return held;
}

/* Somebody serves it, and is not just about to be dead. */
static bool stays_served(unsigned int device)
{
	int lock = lock_open(device);
	bool stays = lock >= 0 && lock_wait(lock, DYING_MS) == -ETIMEDOUT;

	if (lock >= 0)
		close(lock);
	return stays;
}

/* Nobody can stop it but the driver; a keeper that is still there ends when that has. */
static int del_orphan(unsigned int device)
{
	bool known = file_is_there(device);
	int lock = lock_open(device);
	int ret = remove_orphan(device);

	if (lock >= 0 && lock_wait(lock, DEL_DEADLINE_MS) && !ret)
		ret = -ETIMEDOUT;
	if (lock >= 0)
		close(lock);
	if (ret != -ETIMEDOUT)
		state_remove(device);
	return ret == -ENODEV && known ? 0 : ret; /* only the files were left */
}

struct manner {
	bool force;
	bool orphan;	    /* only what nobody serves */
	uint64_t wait_secs; /* while it is in use */
};

/* @ret_busy: it is in use; then nothing is said. */
static int del_device(unsigned int device, const struct manner *manner, bool *ret_busy)
{
	int ret;

	if (manner->orphan && stays_served(device))
		return log_error(-EBUSY, "device %u has a server, and is left to it", device);
	if (!manner->force && is_served(device) && in_use(device)) {
		*ret_busy = true;
		return -EBUSY;
	}
	ret = stop_server(device);
	if (ret == -ESRCH)
		ret = del_orphan(device);
	if (ret == -ENODEV && manner->orphan)
		return 0;
	if (ret == -ENODEV)
		return log_error(ret, "there is no device %u (ublkzc list)", device);
	if (ret == -ETIMEDOUT)
		return log_error(
			ret,
			"/dev/ublkb%u: neither server nor driver stop it; is it in use? The "
			"kernel's log may say more",
			device);
	if (!ret)
		wait_for_number(device);
	if (ret == -EPERM || ret == -EACCES)
		return log_error(ret, "/dev/ublkb%u: only root and the server's user may remove it",
				 device);
	return ret ? log_error(ret, "remove device %u", device) : 0;
}

struct all {
	const struct manner *manner;
	bool last; /* what is in use now stays so */
	bool failed;
	unsigned int nr_removed;
	unsigned int nr_busy;
};

static int del_each(unsigned int device, void *arg)
{
	struct all *all = arg;
	bool busy = false;

	if (!del_device(device, all->manner, &busy)) {
		all->nr_removed++;
	} else if (busy && !all->last) {
		all->nr_busy++;
	} else {
		all->failed = true;
		if (busy)
			refuse(device);
	}
	return 0;
}

/* One device can be the storage of another: again, for as long as that helps. */
static bool del_all(const struct manner *manner)
{
	struct all all = { .manner = manner };
	bool failed = false;

	do {
		all.last = all.nr_busy && !all.nr_removed;
		all.nr_busy = all.nr_removed = 0;
		failed = state_for_each(del_each, &all) || all.failed;
	} while (all.nr_busy);
	return !failed;
}

/* At shutdown others are just unmounting it. */
static int del_one(unsigned int device, const struct manner *manner)
{
	struct timespec pause = { .tv_nsec = 100000000 };

	for (uint64_t tenths = 0;; tenths++) {
		bool busy = false;
		int ret = del_device(device, manner, &busy);

		if (!busy)
			return ret;
		if (tenths >= manner->wait_secs * 10)
			return refuse(device);
		if (!tenths)
			log_line(LOG_INFO, "/dev/ublkb%u is in use: waiting for its end", device);
		nanosleep(&pause, NULL);
	}
}

int del_unless_in_use(unsigned int device)
{
	return del_one(device, &(struct manner){ 0 });
}

/* ---- the verb ---- */

struct wish {
	struct devices devices;
	bool all;
	struct manner manner;
};

static const struct flag flags[] = {
	FLAG_DEVICE,
	{ 'a', "all", WORD_NONE, NULL, "all devices of ublkzc's servers" },
	{ 'f', "force", WORD_NONE, NULL,
	  "also one that is in use; what was not written back is lost" },
	{ 'w', "wait", WORD_ANY, "SECONDS",
	  "one that is in use: until it is not, so long at most" },
	{ 'o', "orphan", WORD_NONE, NULL, "only one that nobody serves: server and keeper died" },
};

static int parse(struct command_line *line, struct wish *w)
{
	int key;

	while ((key = command_next(line)) > 0) {
		if (key == 'n' && devices_add(&w->devices, line->command, line->value))
			return LINE_BAD;
		w->all |= key == 'a';
		w->manner.force |= key == 'f';
		w->manner.orphan |= key == 'o';
		if (key == 'w' && number_parse(line->value, 0, WAIT_MAX, &w->manner.wait_secs))
			return command_error(line->command, "--wait '%s': seconds, at most %u",
					     line->value, WAIT_MAX);
	}
	if (!key)
		key = devices_add_operands(&w->devices, line);
	if (!key && w->all && w->devices.nr)
		return command_error(line->command, "--all, or devices, but not both");
	if (!key && w->manner.wait_secs && (w->all || w->manner.force))
		return command_error(line->command, "--wait goes with neither --all nor --force");
	if (!key && !w->all && !w->devices.nr)
		return command_error(line->command, "which device? --all is all of them");
	return key;
}

static int del_wished(const struct wish *w)
{
	bool failed = w->all && !del_all(&w->manner);

	for (unsigned int i = 0; i < w->devices.nr; i++)
		failed |= del_one(w->devices.ids[i], &w->manner) != 0;
	return failed ? EXIT_FAILURE : 0;
}

static int del(const struct command *command, int argc, char **argv)
{
	struct command_line line;
	struct wish w = { 0 };
	int ret;

	command_begin(&line, command, argc, argv);
	ret = parse(&line, &w);
	ret = ret ? command_status(ret) : del_wished(&w);
	devices_free(&w.devices);
	return ret;
}

const struct command command_del = {
	.name = "del",
	.summary = "stop servers and remove their devices",
	.operands = "[DEVICE...]",
	.operand = WORD_DEVICE,
	.about = "Also of a device whose server has died. One that is mounted, or used by another "
		 "block device or as swap, is removed only with --force.",
	FLAGS(flags),
	.run = del,
};
