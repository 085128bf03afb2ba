/* SPDX-License-Identifier: MIT */
/* run_where.c - see run_where.h. */
#include "run_where.h"

#include <fcntl.h>
#include <fts.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "server/life/state.h"

#define DEVICES_MAX 64U
#define PLACES_MAX 65536U /* of a device: 4 GiB that were copied; what is more is left out */
#define FILES_MAX 50000U  /* that are looked at in a file system */
#define EXTENTS 128U	  /* that are asked for at once */
#define SECTOR 512ULL

struct device {
	unsigned int number;
	uint64_t seen; /* of copied.nr */
	uint32_t nr;
	uint64_t *places;
	char file[4096]; /* that most of them are of, and how many */
	uint32_t most;
	bool mounted;
};

struct run_where {
	unsigned int nr;
	struct device of[DEVICES_MAX];
};

/* ---- what was noted ---- */

static struct device *find(struct run_where *w, unsigned int number)
{
	for (unsigned int i = 0; i < w->nr; i++)
		if (w->of[i].number == number)
			return &w->of[i];
	if (w->nr == DEVICES_MAX)
		return NULL;
	w->of[w->nr] = (struct device){ .number = number };
	return &w->of[w->nr++];
}

static void take(struct device *d, const struct copied *c)
{
	uint64_t nr = atomic_load_explicit(&c->nr, memory_order_relaxed);

	/* A device that was made anew begins anew, and of the oldest there is nothing left. */
	if (nr < d->seen)
		d->seen = 0;
	if (nr - d->seen > COPIED_PLACES)
		d->seen = nr - COPIED_PLACES;
	if (!d->places && d->seen < nr)
		d->places = calloc(PLACES_MAX, sizeof(*d->places));
	for (; d->places && d->seen < nr && d->nr < PLACES_MAX; d->seen++)
		d->places[d->nr++] = atomic_load_explicit(&c->places[d->seen % COPIED_PLACES],
							  memory_order_relaxed);
	d->seen = nr;
}

static int take_device(unsigned int number, void *arg)
{
	struct device *d = find(arg, number);
	const struct state *state;

	if (!d || state_open(number, &state))
		return 0;
	take(d, &state->copied);
	state_close(state);
	return 0;
}

void run_where_look(void *arg)
{
	if (arg)
		state_for_each(take_device, arg);
}

static int begin_device(unsigned int number, void *arg)
{
	struct device *d = find(arg, number);
	const struct state *state;

	if (!d || state_open(number, &state))
		return 0;
	d->seen = atomic_load_explicit(&state->copied.nr, memory_order_relaxed);
	state_close(state);
	return 0;
}

struct run_where *run_where_begin(void)
{
	struct run_where *w = calloc(1, sizeof(*w));

	if (w)
		state_for_each(begin_device, w);
	return w;
}

/* ---- whose it was ---- */

static int by_place(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* How many places are below @place. */
static uint32_t below(const struct device *d, uint64_t place)
{
	uint32_t from = 0, to = d->nr;

	while (from < to) {
		uint32_t middle = from + (to - from) / 2;

		if (d->places[middle] < place)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

/* How many are in the extents of the file open as @fd, whose file system begins at @start. */
static uint32_t places_in(const struct device *d, int fd, uint64_t start)
{
	_Alignas(struct fiemap) static char
		room[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
	struct fiemap *map = (struct fiemap *)room;
	const struct fiemap_extent *last;
	uint64_t from = 0;
	uint32_t nr = 0;

	do {
		*map = (struct fiemap){ .fm_start = from,
					.fm_length = FIEMAP_MAX_OFFSET - from,
					.fm_extent_count = EXTENTS };
		if (ioctl(fd, FS_IOC_FIEMAP, map) < 0 || !map->fm_mapped_extents)
			break;
		for (uint32_t i = 0; i < map->fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &map->fm_extents[i];

			if (!(e->fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_ENCODED)))
				nr += below(d, start + e->fe_physical + e->fe_length) -
				      below(d, start + e->fe_physical);
		}
		last = &map->fm_extents[map->fm_mapped_extents - 1];
		from = last->fe_logical + last->fe_length;
	} while (!(last->fe_flags & FIEMAP_EXTENT_LAST));
	return nr;
}

static void look_at_file(struct device *d, const char *path, uint64_t start)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint32_t nr;

	if (fd < 0)
		return;
	nr = places_in(d, fd, start);
	close(fd);
	if (nr <= d->most)
		return;
	d->most = nr;
	snprintf(d->file, sizeof(d->file), "%s", path);
}

static void look_at_mount(struct device *d, char *mount, uint64_t start)
{
	char *const roots[] = { mount, NULL };
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	unsigned int files = 0;
	FTSENT *entry;

	while (tree && files < FILES_MAX && (entry = fts_read(tree))) {
		if (entry->fts_info != FTS_F)
			continue;
		look_at_file(d, entry->fts_accpath, start);
		files++;
	}
	if (tree)
		fts_close(tree);
}

/* Is the block device "MAJOR:MINOR" a ublk disk, or a partition of one that begins at @start? */
static bool is_ublk(const char *numbers, unsigned int *ret_number, uint64_t *ret_start)
{
	char path[96], target[4096];
	unsigned int partition;
	const char *disk;
	ssize_t len;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/dev/block/%s", numbers);
	len = readlink(path, target, sizeof(target) - 1);
	target[len > 0 ? len : 0] = '\0';
	disk = strstr(target, "/ublkb");
	if (!disk || sscanf(disk, "/ublkb%u", ret_number) != 1)
		return false;
	*ret_start = 0;
	disk = strstr(disk + 1, "/ublkb");
	if (!disk || sscanf(disk, "/ublkb%*up%u", &partition) != 1)
		return true;
	snprintf(path, sizeof(path), "/sys/dev/block/%s/start", numbers);
	file = fopen(path, "re");
	if (!file)
		return false;
	len = fscanf(file, "%lu", ret_start);
	fclose(file);
	*ret_start *= SECTOR;
	return len == 1;
}

/* proc(5): a space is \040. */
static void unescape(char *text)
{
	char *to = text;
	unsigned int byte;

	for (; *text; to++) {
		if (*text == '\\' && sscanf(text + 1, "%3o", &byte) == 1) {
			*to = (char)byte;
			text += 4;
		} else {
			*to = *text++;
		}
	}
	*to = '\0';
}

/* Once is enough for a file system that is mounted in several places. */
static void look_at_mounts(struct run_where *w)
{
	char line[8192], numbers[32], root[4096], mount[4096];
	FILE *file = fopen("/proc/self/mountinfo", "re");
	unsigned int number;
	uint64_t start;

	while (file && fgets(line, sizeof(line), file)) {
		struct device *d;

		if (sscanf(line, "%*d %*d %31s %4095s %4095s", numbers, root, mount) != 3 ||
		    strcmp(root, "/") != 0 || !is_ublk(numbers, &number, &start))
			continue;
		d = find(w, number);
		if (!d || !d->nr)
			continue;
		unescape(mount);
		d->mounted = true;
		look_at_mount(d, mount, start);
	}
	if (file)
		fclose(file);
}

static void say(const struct device *d)
{
	if (d->most)
		fprintf(stderr, "ublkzc: /dev/ublkb%u: %.0f %% of what was copied is of %s\n",
			d->number, 100.0 * d->most / d->nr, d->file);
	else if (d->mounted)
		fprintf(stderr,
			"ublkzc: /dev/ublkb%u: what was copied is of no file that can be found "
			"now: the file system's own, or of files that are gone\n",
			d->number);
}

void run_where_say(struct run_where *w)
{
	if (!w)
		return;
	run_where_look(w);
	for (unsigned int i = 0; i < w->nr; i++)
		if (w->of[i].nr)
			qsort(w->of[i].places, w->of[i].nr, sizeof(uint64_t), by_place);
	look_at_mounts(w);
	for (unsigned int i = 0; i < w->nr; i++) {
		say(&w->of[i]);
		free(w->of[i].places);
	}
	free(w);
}
