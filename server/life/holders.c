/* SPDX-License-Identifier: MIT */
/* holders.c - see holders.h; proc_mounts(5), proc_swaps(5), sysfs(5). */
#include "holders.h"

#include <dirent.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "state.h"

struct text {
	char *buf;
	size_t size;
	size_t len;
};

static void say(struct text *t, const char *what, const char *name)
{
	int n;

	if (t->len + 1 >= t->size)
		return;
	n = snprintf(t->buf + t->len, t->size - t->len, "%s%s%s", t->len ? ", " : "", what, name);
	if (n > 0)
		t->len += (size_t)n < t->size - t->len ? (size_t)n : t->size - t->len - 1;
}

static bool is_device(const char *path, dev_t dev)
{
	struct stat st;

	return path[0] == '/' && stat(path, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == dev;
}

static void say_mounts(struct text *t, dev_t dev)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	const struct mntent *m;

	while (f && (m = getmntent(f)))
		if (strncmp(m->mnt_fsname, "/dev/", 5) == 0 && is_device(m->mnt_fsname, dev))
			say(t, "mounted on ", m->mnt_dir);
	if (f)
		endmntent(f);
}

static void say_swap(struct text *t, dev_t dev)
{
	FILE *f = fopen("/proc/swaps", "re");
	char line[512];
	char path[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%255s", path) == 1 && is_device(path, dev))
			say(t, "swap", "");
	if (f)
		fclose(f);
}

static void say_above(struct text *t, dev_t dev)
{
	const struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(dev), minor(dev));
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			say(t, "part of /dev/", entry->d_name);
	if (dir)
		closedir(dir);
}

struct server_search {
	struct text *text;
	dev_t dev;
};

static int say_server(unsigned int device, void *arg)
{
	const struct server_search *s = arg;
	const struct state *state;
	char name[24];

	if (state_open(device, &state))
		return 0;
	if (is_device(state->path, s->dev)) {
		snprintf(name, sizeof(name), "%u", device);
		say(s->text, "served as /dev/ublkb", name);
	}
	state_close(state);
	return 0;
}

static void say_all(struct text *t, dev_t dev)
{
	struct server_search search = { .text = t, .dev = dev };

	say_mounts(t, dev);
	say_swap(t, dev);
	say_above(t, dev);
	state_for_each(say_server, &search);
}

/* Who has a partition has the disk. */
static void say_partitions(struct text *t, dev_t dev)
{
	const struct dirent *entry;
	unsigned int maj, min;
	char path[400];
	FILE *f;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/partition", major(dev),
			 minor(dev), entry->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		fclose(f);
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/dev", major(dev), minor(dev),
			 entry->d_name);
		f = fopen(path, "re");
		if (f && fscanf(f, "%u:%u", &maj, &min) == 2)
			say_all(t, makedev(maj, min));
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
}

void holders_describe(dev_t dev, char *buf, size_t size)
{
	struct text t = { .buf = buf, .size = size };

	say_all(&t, dev);
	say_partitions(&t, dev);
	if (!t.len)
		say(&t, "some program has it for itself", "");
}
