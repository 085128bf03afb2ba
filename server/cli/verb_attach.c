/* SPDX-License-Identifier: MIT */
/* verb_attach.c - "attach" and "detach": programs that run without libublkzc.so. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/blkdev.h"
#include "common/log.h"
#include "common/wire.h"
#include "server/life/state.h"
#include "server/memory/maps.h"
#include "admin.h"
#include "command.h"
#include "output.h"
#include "sizes.h"
#include "verbs.h"

#define DEVICES_MAX 64
#define NO_DEVICE UINT64_MAX

struct wish {
	pid_t pid;
	uint64_t device;
	bool dry_run, list, json, bytes;
	json_t *attached; /* what came of it, with json */
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
		fprintf(w->json ? stderr : stdout,
			"process %d has nothing open on a ublk device; /dev/ublkb%u is the only "
			"one served\n",
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
	char size[OUTPUT_SIZE];

	printf("%s %" PRIx64 "-%" PRIx64 " %s%s %s%s%s\n",
	       fd >= 0 ? "would register" : "would leave   ", e->start, e->end,
	       size_text(size, e->end - e->start, w->bytes), e->writable ? "" : " read-only",
	       e->name, fd < 0 ? ": " : "", fd < 0 ? what_is(fd) : "");
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

static json_t *attached_json(unsigned int device, const struct wire_reply *r)
{
	return json_pack("{s:i, s:i, s:i, s:i, s:I, s:i}", "device", (int)device, "pid",
			 (int)r->pid, "processes", (int)r->processes, "buffers", (int)r->index,
			 "bytes", (json_int_t)r->max_bytes, "refused", (int)r->refused);
}

static int attach_to(const struct wish *w, unsigned int device)
{
	struct wire_reply reply;
	char size[OUTPUT_SIZE];
	int ret = ask(device, WIRE_ATTACH, (uint32_t)w->pid, 0, &reply);

	if (ret)
		return ret;
	if (reply.status)
		return log_error(reply.status, "/dev/ublkb%u: process %d: %s", device, (int)w->pid,
				 wire_reason_text(reply.reason));
	if (w->attached) {
		json_t *one;

		reply.pid = (uint32_t)w->pid;
		one = attached_json(device, &reply);
		if (reply.refused)
			json_object_set_new(one, "why_refused",
					    json_string(wire_reason_text(reply.reason)));
		json_array_append_new(w->attached, one);
		return 0;
	}
	printf("/dev/ublkb%u: %s in %u buffers of %u process%s\n", device,
	       size_text(size, reply.max_bytes, w->bytes), reply.index, reply.processes,
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

/* ---- what is attached ---- */

struct listing {
	bool bytes;
	json_t *attached; /* NULL: the table */
	struct table table;
};

static void list_one(struct listing *l, unsigned int device, const struct wire_reply *r)
{
	char size[OUTPUT_SIZE];

	if (l->attached) {
		json_array_append_new(l->attached, attached_json(device, r));
		return;
	}
	table_cellf(&l->table, "/dev/ublkb%u", device);
	table_cellf(&l->table, "%u", r->pid);
	table_cellf(&l->table, "%u", r->processes);
	table_cellf(&l->table, "%u", r->index);
	table_cell(&l->table, size_text(size, r->max_bytes, l->bytes));
	table_cellf(&l->table, "%u", r->refused);
}

static int list_device(struct listing *l, unsigned int device)
{
	struct wire_reply reply;

	for (uint32_t k = 0;; k++) {
		int err = ask(device, WIRE_ATTACHED, 0, k, &reply);

		if (!err && reply.status && reply.status != -ENOENT)
			err = log_error(reply.status, "/dev/ublkb%u: %s", device,
					wire_reason_text(reply.reason));
		if (err || reply.status)
			return err;
		list_one(l, device, &reply);
	}
}

static int list(struct wish *w)
{
	static const char *const headings[] = { "DEVICE",  "PID",  "PROCESSES",
						"BUFFERS", "SIZE", "REFUSED" };
	struct listing l = { .bytes = w->bytes, .attached = w->json ? json_array() : NULL };
	int ret = 0;

	table_begin(&l.table, headings, 6, 0x3e);
	if (w->device != NO_DEVICE)
		choose(w, (unsigned int)w->device);
	else
		state_for_each(choose_if_alive, w);
	for (unsigned int i = 0; i < w->nr_devices; i++) {
		int err = list_device(&l, w->devices[i]);

		ret = err ? err : ret;
	}
	table_end(&l.table);
	if (l.attached && json_print("attached", l.attached))
		ret = -ENOMEM;
	return ret;
}

/* ---- the verbs ---- */

static const struct flag attach_flags[] = {
	{ 'p', "pid", WORD_PID, "PID", "the program" },
	{ 'n', "device", WORD_DEVICE, "DEVICE",
	  "the device; default: those the program has files open on" },
	{ 'd', "dry-run", WORD_NONE, NULL, "only say what would be registered" },
	{ 'l', "list", WORD_NONE, NULL, "what is attached" },
	{ 'b', "bytes", WORD_NONE, NULL, "sizes in bytes" },
	FLAG_JSON('j'),
};

static const struct flag detach_flags[] = {
	{ 'p', "pid", WORD_PID, "PID", "the program" },
	{ 'n', "device", WORD_DEVICE, "DEVICE", "the device; default: all it is attached to" },
};

static int set(struct wish *w, const struct command_line *line, int key)
{
	unsigned int device;
	uint64_t pid;

	switch (key) {
	case 'p':
		if (number_parse(line->value, 1, INT32_MAX, &pid))
			return command_error(line->command, "--pid '%s': not a process",
					     line->value);
		w->pid = (pid_t)pid;
		return 0;
	case 'n':
		if (device_parse(line->value, &device))
			return command_error(line->command,
					     "'%s' is not a device: 0, ublkb0 and /dev/ublkb0 are",
					     line->value);
		w->device = device;
		return 0;
	case 'd':
		w->dry_run = true;
		return 0;
	case 'l':
		w->list = true;
		return 0;
	case 'b':
		w->bytes = true;
		return 0;
	default:
		w->json = true;
		return 0;
	}
}

static int parse(const struct command *command, int argc, char **argv, struct wish *w)
{
	struct command_line line;
	int key;

	*w = (struct wish){ .device = NO_DEVICE };
	command_begin(&line, command, argc, argv);
	while ((key = command_next(&line)) > 0)
		if (set(w, &line, key))
			return LINE_BAD;
	if (!key && w->dry_run && (w->list || w->json))
		return command_error(command, "--dry-run goes with neither --list nor --json");
	if (!key && !w->pid && !w->list)
		return command_error(command, "which program? --pid says it");
	if (!key && w->pid && w->list)
		return command_error(command, "--list lists all: without --pid");
	return key;
}

static int attach_to_all(struct wish *w)
{
	int ret = choose_devices(w);

	w->attached = w->json ? json_array() : NULL;
	for (unsigned int i = 0; !ret && i < w->nr_devices; i++)
		ret = attach_to(w, w->devices[i]);
	if (w->attached && ret)
		json_decref(w->attached);
	else if (w->attached)
		ret = json_print("attached", w->attached);
	return ret;
}

static int attach(const struct command *command, int argc, char **argv)
{
	struct wish w;
	int ret = parse(command, argc, argv, &w);

	if (ret)
		return command_status(ret);
	if (w.list)
		ret = list(&w);
	else if (w.dry_run)
		ret = dry_run(&w);
	else if (kill(w.pid, 0) < 0 && errno == ESRCH)
		ret = no_such_process(w.pid, -ESRCH);
	else
		ret = attach_to_all(&w);
	return ret ? EXIT_FAILURE : 0;
}

const struct command command_attach = {
	.name = "attach",
	.summary = "zero copy for a program that is already running",
	.about =
		"Registers the memory that the program shares itself: anonymous shared mappings "
		"(PostgreSQL's), SysV segments, memfds, files on tmpfs and hugetlbfs, of 1 MiB and "
		"more. Private memory cannot be attached. For root, and the server's own user.\n"
		"The server follows what the program forks, looks for children each second and at "
		"all their memory every ten seconds, until all have ended. A child whose parent "
		"ends before the next look is not found.",
	FLAGS(attach_flags),
	.run = attach,
};

static int detach(const struct command *command, int argc, char **argv)
{
	unsigned int nr = 0;
	struct wish w;
	int ret = parse(command, argc, argv, &w);

	if (ret)
		return command_status(ret);
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

const struct command command_detach = {
	.name = "detach",
	.summary = "end what attach began",
	FLAGS(detach_flags),
	.run = detach,
};
