/* SPDX-License-Identifier: MIT */
/* doctor_devices.c - see doctor.h. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/wire.h"
#include "server/life/state.h"
#include "admin.h"
#include "doctor.h"

/* May this user open it for I/O? */
static bool check_node(struct doctor *d, unsigned int device, bool read_only)
{
	char path[32];
	struct finding *f;

	snprintf(path, sizeof(path), "/dev/ublkb%u", device);
	if (access(path, read_only ? R_OK : R_OK | W_OK) == 0)
		return true;
	if (errno == ENOENT) {
		f = doctor_say(d, "device", GRADE_BAD, "%s is served, but the node is not here",
			       path);
		if (d->contained)
			finding_next(f, "give the container the device: --device %s", path);
		else
			finding_next(f, "start udev, or mount a devtmpfs on /dev");
		return false;
	}
	doctor_say(d, "device", GRADE_NOTE,
		   "%s may not be opened by this user (%s); files on it may", path,
		   strerror(errno));
	return true;
}

static bool check_socket(struct doctor *d, unsigned int device)
{
	int fd = admin_connect(device);

	if (fd >= 0) {
		close(fd);
		return true;
	}
	finding_next(doctor_say(d, "device", GRADE_BAD,
				"/dev/ublkb%u: " WIRE_DIR "/ublkb%u.sock: %s", device, device,
				strerror(-fd)),
		     "%s",
		     d->contained ? "mount the host's " WIRE_DIR " into the container"
				  : "see /run/ublkzc/ublkbN.log; ublkzc list");
	return false;
}

static void say_pinning(struct doctor *d, const struct state *s)
{
	struct queue_counters sum;

	state_sum(s, &sum);
	if (counter_get(&sum.fixed_refused))
		finding_next(
			doctor_say(
				d, "device", GRADE_NOTE,
				"/dev/ublkb%u could not pin all registered memory for good: large "
				"requests cost more",
				s->device),
			"give its server CAP_IPC_LOCK, or no RLIMIT_MEMLOCK "
			"(LimitMEMLOCK=infinity)");
}

static void say_server(struct doctor *d, const struct state *s)
{
	if (!state_alive(s)) {
		finding_next(doctor_say(d, "device", GRADE_BAD,
					"/dev/ublkb%u: its server is dead; I/O waits", s->device),
			     "ublkzc recover %u", s->device);
		return;
	}
	if (!s->shmem_zc) {
		doctor_say(d, "device", GRADE_BAD,
			   "/dev/ublkb%u (%s %.80s) copies all: no zero copy in the driver, or "
			   "--copy-only",
			   s->device, s->target, s->path);
		return;
	}
	if (!check_socket(d, s->device) || !check_node(d, s->device, s->read_only))
		return;
	d->device = (int)s->device;
	doctor_say(d, "device", GRADE_OK, "/dev/ublkb%u (%s %.80s) is served with zero copy",
		   s->device, s->target, s->path);
	say_pinning(d, s);
}

static int look_at(unsigned int device, void *arg)
{
	struct doctor *d = arg;
	const struct state *state;
	int ret;

	if (d->nr + 8 > DOCTOR_FINDINGS)
		return 0; /* one of them is enough */
	ret = state_open(device, &state);
	if (ret == -EBADMSG)
		finding_next(doctor_say(d, "device", GRADE_NOTE,
					"/dev/ublkb%u is served by another version of ublkzc",
					device),
			     "ublkzc upgrade %u", device);
	if (ret)
		return 0;
	say_server(d, state);
	state_close(state);
	return 0;
}

/* A disk of the kernel's that no server's state is here for; -1: none. */
static int strange_disk(void)
{
	DIR *dir = opendir("/sys/block");
	int found = -1;

	if (!dir)
		return -1;
	for (struct dirent *e; (e = readdir(dir));) {
		char path[64];
		unsigned int device;

		if (sscanf(e->d_name, "ublkb%u", &device) != 1)
			continue;
		snprintf(path, sizeof(path), STATE_DIR "/ublkb%u.stat", device);
		if (access(path, F_OK) < 0)
			found = (int)device;
	}
	closedir(dir);
	return found;
}

void doctor_devices(struct doctor *d)
{
	unsigned int before = d->nr;
	struct finding *f;
	int strange;

	state_for_each(look_at, d);
	for (unsigned int i = before; d->device >= 0 && i < d->nr; i++)
		if (d->findings[i].grade == GRADE_BAD)
			d->findings[i].grade = GRADE_NOTE; /* there is another */
	if (d->nr != before)
		return;
	strange = strange_disk();
	if (strange >= 0) {
		f = doctor_say(
			d, "device", GRADE_BAD,
			"/dev/ublkb%d is there, but its server is not reached through " WIRE_DIR,
			strange);
		finding_next(f, "%s",
			     d->contained ? "mount the host's " WIRE_DIR " into the container"
					  : "serve it with ublkzc");
		return;
	}
	finding_next(doctor_say(d, "device", GRADE_BAD, "no device is served"),
		     "ublkzc add -t file PATH");
}
