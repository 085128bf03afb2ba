/* SPDX-License-Identifier: MIT */
/* verb_attach.c - "attach" and "detach": programs that run without libublkzc.so. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/blkdev.h"
#include "common/log.h"
#include "admin.h"
#include "common/wire.h"
#include "memory/maps.h"
#include "sizes.h"
#include "state.h"
#include "verbs.h"

#define DEVICES_MAX 64
#define NO_DEVICE UINT64_MAX

static const char attach_usage[] =
	"usage: ublkzc attach --pid PID [--device ID|/dev/ublkbN] [--dry-run]\n"
	"       ublkzc attach --list [--json]\n"
	"\n"
	"Register the shared memory of a running program, and of what it forks, with the\n"
	"server of a device, so that its direct I/O is zero-copy without libublkzc.so.\n"
	"\n"
	"  -p, --pid PID        the program\n"
	"  -n, --device DEVICE  the device; default: those the program has files open on\n"
	"      --dry-run        only say what would be registered\n"
	"      --list           what is attached\n"
	"      --json           the list for programs\n";

static const char detach_usage[] = "usage: ublkzc detach --pid PID [--device ID|/dev/ublkbN]\n";

struct wish {
	pid_t pid;
	uint64_t device;
	bool dry_run, list, json;
	unsigned int devices[DEVICES_MAX];
	unsigned int nr_devices;
};

/* ---- talking to a server ---- */

static int ask(unsigned int device, enum wire_type type, uint32_t pid, uint32_t index,
	       struct wire_reply *ret)
{
	struct wire_request req;

	wire_request_init(&req, type, 1);
	req.pid = pid;
	req.index = index;
	return admin_ask(device, &req, ret);
}

/* ---- which devices ---- */

static bool chosen(const struct wish *w, unsigned int device)
{
	for (unsigned int i = 0; i < w->nr_devices; i++)
		if (w->devices[i] == device)
			return true;
	return false;
}

static void choose(struct wish *w, unsigned int device)
{
	if (w->nr_devices < DEVICES_MAX && !chosen(w, device))
		w->devices[w->nr_devices++] = device;
}

static void choose_behind(struct wish *w, const char *path)
{
	struct blkdev_ublk found;
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return;
	if (blkdev_find_ublk_fd(fd, &found) == 0)
		for (unsigned int i = 0; i < found.nr; i++)
			choose(w, found.ids[i]);
	close(fd);
}

/* Its open files, and where it works: databases sit in their data directory. */
static void choose_used_by(struct wish *w, pid_t pid)
{
	char path[300];
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%d/cwd", (int)pid);
	choose_behind(w, path);
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	fds = opendir(path);
	if (!fds)
		return;
	for (struct dirent *e; (e = readdir(fds));) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, e->d_name);
		if (e->d_name[0] != '.')
			choose_behind(w, path);
	}
	closedir(fds);
}

static void choose_used_by_children(struct wish *w)
{
	char path[64];
	int pid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)w->pid, (int)w->pid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fscanf(f, "%d", &pid) == 1)
		choose_used_by(w, pid);
	fclose(f);
}

static int choose_if_alive(unsigned int device, void *arg)
{
	const struct state *state;

	if (state_open(device, &state))
		return 0;
	if (state_alive(state))
		choose(arg, device);
	state_close(state);
	return 0;
}

static int choose_devices(struct wish *w)
{
	if (w->device != NO_DEVICE) {
		choose(w, (unsigned int)w->device);
		return 0;
	}
	choose_used_by(w, w->pid);
	choose_used_by_children(w);
	if (w->nr_devices)
		return 0;
	state_for_each(choose_if_alive, w);
	if (w->nr_devices == 1) {
		printf("process %d has nothing open on a ublk device; /dev/ublkb%u is the only one "
		       "served\n",
		       (int)w->pid, w->devices[0]);
		return 0;
	}
	return log_error(-ENODEV,
			 w->nr_devices ? "process %d has nothing open on a ublk device: name one "
					 "with --device"
				       : "process %d: no ublkzc server is running",
			 (int)w->pid);
}

/* ---- the verbs ---- */

static const char *what_is(int err)
{
	switch (err) {
	case -EMEDIUMTYPE:
		return "a file on a disk, not memory";
	case -EPERM:
	case -EACCES:
		return "it may not be opened: root (CAP_SYS_ADMIN) is needed";
	default:
		return strerror(-err);
	}
}

static int dry_run_one(const struct maps_entry *e, void *arg)
{
	struct wish *w = arg;
	int fd = maps_open(w->pid, e);

	printf("%s %" PRIx64 "-%" PRIx64 " %llu bytes%s %s%s%s\n",
	       fd >= 0 ? "would register" : "would leave   ", e->start, e->end,
	       (unsigned long long)(e->end - e->start), e->writable ? "" : " read-only", e->name,
	       fd < 0 ? ": " : "", fd < 0 ? what_is(fd) : "");
	if (fd >= 0) {
		close(fd);
		w->nr_devices++;
	}
	return 0;
}

static int no_such_process(pid_t pid, int err)
{
	if (err == -ENOENT || err == -ESRCH)
		return log_error(-ESRCH, "process %d", (int)pid);
	return log_error(err, "/proc/%d/maps", (int)pid);
}

static void say_nothing_found(pid_t pid)
{
	printf("process %d shares no memory in pieces of 1 MiB and more: private memory needs "
	       "LD_PRELOAD=libublkzc.so\n",
	       (int)pid);
}

static int dry_run(struct wish *w)
{
	int ret = maps_each_shared(w->pid, dry_run_one, w);

	if (ret)
		return no_such_process(w->pid, ret);
	if (!w->nr_devices)
		say_nothing_found(w->pid);
	return 0;
}

static int attach_to(const struct wish *w, unsigned int device)
{
	struct wire_reply reply;
	int ret = ask(device, WIRE_ATTACH, (uint32_t)w->pid, 0, &reply);

	if (ret)
		return ret;
	if (reply.status)
		return log_error(reply.status, "/dev/ublkb%u: process %d: %s", device, (int)w->pid,
				 wire_reason_text(reply.reason));
	printf("/dev/ublkb%u: %llu bytes in %u buffers of %u process%s\n", device,
	       (unsigned long long)reply.max_bytes, reply.index, reply.processes,
	       reply.processes == 1 ? "" : "es");
	if (reply.refused)
		printf("/dev/ublkb%u: %u pieces not registered, the last one because %s\n", device,
		       reply.refused, wire_reason_text(reply.reason));
	else if (!reply.index)
		say_nothing_found(w->pid);
	return 0;
}

static int detach_from(const struct wish *w, unsigned int device)
{
	struct wire_reply reply;
	int ret = ask(device, WIRE_DETACH, (uint32_t)w->pid, 0, &reply);

	if (!ret && reply.status)
		ret = log_error(reply.status, "/dev/ublkb%u: process %d: %s", device, (int)w->pid,
				wire_reason_text(reply.reason));
	return ret;
}

static void list_one(unsigned int device, const struct wire_reply *r, bool json, bool first)
{
	if (json)
		printf("%s{\"device\":%u,\"pid\":%u,\"processes\":%u,\"buffers\":%u,\"bytes\":%llu,"
		       "\"refused\":%u}",
		       first ? "" : ",", device, r->pid, r->processes, r->index,
		       (unsigned long long)r->max_bytes, r->refused);
	else
		printf("/dev/ublkb%u: process %u: %llu bytes in %u buffers of %u process%s\n",
		       device, r->pid, (unsigned long long)r->max_bytes, r->index, r->processes,
		       r->processes == 1 ? "" : "es");
}

static int list(struct wish *w)
{
	bool first = true;
	int ret = 0;

	state_for_each(choose_if_alive, w);
	if (w->json)
		printf("[");
	for (unsigned int i = 0; i < w->nr_devices; i++) {
		struct wire_reply reply;

		for (uint32_t k = 0;; k++) {
			int err = ask(w->devices[i], WIRE_ATTACHED, 0, k, &reply);

			if (!err && reply.status && reply.status != -ENOENT)
				err = log_error(reply.status, "/dev/ublkb%u: %s", w->devices[i],
						wire_reason_text(reply.reason));
			ret = err ? err : ret;
			if (err || reply.status)
				break;
			list_one(w->devices[i], &reply, w->json, first);
			first = false;
		}
	}
	if (w->json)
		printf("]\n");
	return ret;
}

/* "3" or "/dev/ublkb3" */
static int parse_device(const char *text, uint64_t *ret)
{
	static const char prefix[] = "/dev/ublkb";

	if (strncmp(text, prefix, strlen(prefix)) == 0)
		text += strlen(prefix);
	return number_parse(text, 0, 1048575, ret);
}

/* 0, or the exit status plus one. */
static int parse(int argc, char **argv, const char *usage, struct wish *w)
{
	static const struct option longs[] = {
		{ "pid", required_argument, NULL, 'p' },
		{ "device", required_argument, NULL, 'n' },
		{ "dry-run", no_argument, NULL, 'd' },
		{ "list", no_argument, NULL, 'l' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	uint64_t pid = 0;
	bool bad = false;
	int c;

	*w = (struct wish){ .device = NO_DEVICE };
	while ((c = getopt_long(argc, argv, "p:n:h", longs, NULL)) != -1) {
		if (c == 'p')
			bad |= number_parse(optarg, 1, INT32_MAX, &pid) != 0;
		else if (c == 'n')
			bad |= parse_device(optarg, &w->device) != 0;
		else if (c == 'd')
			w->dry_run = true;
		else if (c == 'l')
			w->list = true;
		else if (c == 'j')
			w->json = true;
		else if (c == 'h')
			return fputs(usage, stdout) < 0 ? 2 : 1;
		else
			bad = true;
	}
	w->pid = (pid_t)pid;
	if (bad || optind < argc || (!w->pid && !w->list)) {
		fputs(usage, stderr);
		return EXIT_USAGE + 1;
	}
	return 0;
}

static int for_devices(struct wish *w, int (*each)(const struct wish *w, unsigned int device))
{
	int ret = choose_devices(w);

	for (unsigned int i = 0; !ret && i < w->nr_devices; i++)
		ret = each(w, w->devices[i]);
	return ret;
}

int verb_attach(int argc, char **argv)
{
	struct wish w;
	int ret = parse(argc, argv, attach_usage, &w);

	if (ret)
		return ret - 1;
	if (w.list)
		ret = list(&w);
	else if (w.dry_run)
		ret = dry_run(&w);
	else if (kill(w.pid, 0) < 0 && errno == ESRCH)
		ret = no_such_process(w.pid, -ESRCH);
	else
		ret = for_devices(&w, attach_to);
	return ret ? EXIT_FAILURE : 0;
}

int verb_detach(int argc, char **argv)
{
	unsigned int nr = 0;
	struct wish w;
	int ret = parse(argc, argv, detach_usage, &w);

	if (ret)
		return ret - 1;
	if (w.device != NO_DEVICE)
		return detach_from(&w, (unsigned int)w.device) ? EXIT_FAILURE : 0;
	state_for_each(choose_if_alive, &w);
	for (unsigned int i = 0; i < w.nr_devices; i++) {
		struct wire_reply reply;

		ret = ask(w.devices[i], WIRE_DETACH, (uint32_t)w.pid, 0, &reply);
		nr += !ret && !reply.status;
	}
	if (!nr)
		log_error(-ENOENT, "process %d is attached to no device (ublkzc attach --list)",
			  (int)w.pid);
	return nr ? 0 : EXIT_FAILURE;
}
