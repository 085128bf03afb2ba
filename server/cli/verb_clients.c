/* SPDX-License-Identifier: MIT */
/* verb_clients.c - "clients": who holds how much of a device's registered memory. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "server/life/state.h"
#include "admin.h"
#include "command.h"
#include "output.h"
#include "verbs.h"

#define ANSWER_MS 60000 /* from a server that is busy */

struct listing {
	bool bytes;
	json_t *clients; /* NULL: the table */
	struct table table;
	bool strangers; /* a server counts processes otherwise */
};

/* ---- a client ---- */

struct holder {
	unsigned int device;
	const char *how; /* it is served */
	bool ours;	 /* its number means something here */
	struct wire_reply r;
};

static const char *user_text(uid_t uid, char *buf, size_t size)
{
	const struct passwd *pw = getpwuid(uid);

	snprintf(buf, size, "%u", (unsigned int)uid);
	return pw ? pw->pw_name : buf;
}

/* Of who is attached the server does not say it. */
static bool read_user(const struct holder *h, uid_t *ret)
{
	struct stat st;
	char path[64];

	*ret = h->r.user;
	if (h->r.type == WIRE_CLIENTS)
		return true;
	snprintf(path, sizeof(path), "/proc/%u", h->r.pid);
	if (!h->ours || stat(path, &st) < 0)
		return false;
	*ret = st.st_uid;
	return true;
}

/* "" when it is gone, or cannot be seen from here. */
static void read_command(const struct holder *h, char *buf, size_t size)
{
	char path[64];
	FILE *f;

	buf[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%u/comm", h->r.pid);
	f = h->ours && h->r.pid ? fopen(path, "re") : NULL;
	if (!f)
		return;
	if (fgets(buf, (int)size, f))
		buf[strcspn(buf, "\n")] = '\0';
	fclose(f);
}

static void show_json(struct listing *l, const struct holder *h, const char *command)
{
	json_t *one = json_pack("{s:i, s:s, s:i, s:o, s:i, s:I, s:i}", "device", (int)h->device,
				"how", h->how, "pid", (int)h->r.pid, "command", json_text(command),
				"buffers", (int)h->r.max_buffers, "bytes",
				(json_int_t)h->r.max_bytes, "refused", (int)h->r.refused);
	uid_t uid;

	if (read_user(h, &uid))
		json_object_set_new(one, "uid", json_integer(uid));
	if (h->r.reason)
		json_object_set_new(one, "why_refused", json_string(wire_reason_text(h->r.reason)));
	json_array_append_new(l->clients, one);
}

static void show(struct listing *l, const struct holder *h)
{
	char command[64], size[OUTPUT_SIZE], user[16];
	uid_t uid;

	read_command(h, command, sizeof(command));
	if (l->clients) {
		show_json(l, h, command);
		return;
	}
	table_cellf(&l->table, "/dev/ublkb%u", h->device);
	table_cellf(&l->table, "%u", h->r.pid);
	table_cell(&l->table, read_user(h, &uid) ? user_text(uid, user, sizeof(user)) : "");
	table_cell(&l->table, command);
	table_cell(&l->table, h->how);
	table_cellf(&l->table, "%u", h->r.max_buffers);
	table_cell(&l->table, size_text(size, h->r.max_bytes, l->bytes));
	table_cellf(&l->table, "%u", h->r.refused);
	table_cell(&l->table, h->r.reason ? wire_reason_text(h->r.reason) : "");
}

/* ---- a server ---- */

/* The next one, which says whose processes are counted; 1: there are no more. */
static int ask(int fd, enum wire_type type, uint32_t *index, struct holder *h)
{
	struct wire_request req;
	int ret;

	wire_request_init(&req, type, *index);
	req.index = *index;
	ret = admin_ask_on(fd, &req, ANSWER_MS, &h->r);
	if (ret)
		return log_error(ret, "/dev/ublkb%u: no answer from its server", h->device);
	/* So does the answer that there are no more. */
	if (type == WIRE_CLIENTS)
		h->ours = h->r.processes == (uint32_t)getpid();
	if (h->r.status == -ENOENT)
		return 1;
	if (h->r.status == -EOPNOTSUPP || h->r.reason == WIRE_BAD_MESSAGE)
		return log_error(-EOPNOTSUPP,
				 "/dev/ublkb%u: its server is too old to tell (ublkzc upgrade %u)",
				 h->device, h->device);
	if (h->r.status)
		return log_error(h->r.status, "/dev/ublkb%u: %s", h->device,
				 wire_reason_text(h->r.reason));
	return 0;
}

static int list_clients(struct listing *l, struct holder *h, int fd)
{
	int ret;

	for (uint32_t index = 0; !(ret = ask(fd, WIRE_CLIENTS, &index, h)); index++) {
		index = h->r.index;
		show(l, h);
	}
	l->strangers |= ret == 1 && !h->ours;
	return ret;
}

static int list_attached(struct listing *l, struct holder *h, int fd)
{
	int ret;

	for (uint32_t index = 0; !(ret = ask(fd, WIRE_ATTACHED, &index, h)); index++) {
		h->r.max_buffers = h->r.index;
		show(l, h);
	}
	return ret;
}

static int list_device(struct listing *l, unsigned int device)
{
	struct holder h = { .device = device, .how = "client" };
	int fd = admin_connect(device);
	int ret;

	if (fd == -ETIMEDOUT)
		return log_error(fd, "/dev/ublkb%u: its server takes no connections", device);
	if (fd < 0)
		return log_error(fd, "/dev/ublkb%u has no server that could tell (ublkzc list)",
				 device);
	ret = list_clients(l, &h, fd);
	h.how = "attached";
	if (ret == 1)
		ret = list_attached(l, &h, fd);
	close(fd);
	return ret < 0 ? ret : 0;
}

/* ---- the verb ---- */

static int list_alive(unsigned int device, void *arg)
{
	const struct state *state;
	bool alive;

	if (state_open(device, &state))
		return 0; /* gone meanwhile, or another version's */
	alive = state_alive(state);
	state_close(state);
	return alive ? list_device(arg, device) : 0;
}

static int list(struct listing *l, const struct devices *devices)
{
	static const char *const headings[] = { "DEVICE",  "PID",  "USER",    "COMMAND", "HOW",
						"BUFFERS", "SIZE", "REFUSED", "WHY" };
	int ret = 0;

	table_begin(&l->table, headings, sizeof(headings) / sizeof(headings[0]),
		    1U << 1 | 1U << 5 | 1U << 6 | 1U << 7);
	for (unsigned int i = 0; i < devices->nr; i++)
		ret |= list_device(l, devices->ids[i]);
	if (!devices->nr)
		ret = state_for_each(list_alive, l);
	if (!l->clients && !ret && l->table.nr == l->table.columns)
		fputs("ublkzc: no program holds registered memory of a device\n", stderr);
	table_end(&l->table);
	if (l->strangers)
		fputs("ublkzc: a server runs in another pid namespace: PID is as it sees it\n",
		      stderr);
	if (l->clients && json_print("clients", l->clients))
		ret = -ENOMEM;
	return ret;
}

static const struct flag flags[] = {
	FLAG_DEVICE,
	{ 'b', "bytes", WORD_NONE, NULL, "sizes in bytes" },
	FLAG_JSON('j'),
};

static int parse(const struct command *command, int argc, char **argv, struct listing *l,
		 struct devices *devices)
{
	struct command_line line;
	int key;

	command_begin(&line, command, argc, argv);
	while ((key = command_next(&line)) > 0) {
		if (key == 'n' && devices_add(devices, command, line.value))
			return LINE_BAD;
		l->bytes |= key == 'b';
		if (key == 'j' && !l->clients)
			l->clients = json_array();
	}
	return key ? key : devices_add_operands(devices, &line);
}

static int clients(const struct command *command, int argc, char **argv)
{
	struct devices devices = { 0 };
	struct listing l = { 0 };
	int ret = parse(command, argc, argv, &l, &devices);

	if (ret) {
		json_decref(l.clients);
		ret = command_status(ret);
	} else if (list(&l, &devices)) {
		ret = EXIT_FAILURE;
	}
	devices_free(&devices);
	return ret;
}

const struct command command_clients = {
	.name = "clients",
	.summary = "who holds how much registered memory, and what was refused",
	.operands = "[DEVICE...]",
	.operand = WORD_DEVICES,
	.about =
		"Programs under libublkzc.so (client) and those that attach follows (attached), of "
		"the devices named, or of all. SIZE is registered memory; what several programs "
		"share is counted for one of them. REFUSED are requests since the server began, "
		"and WHY says it of the last. For root, and the server's own user.",
	FLAGS(flags),
	.run = clients,
};
