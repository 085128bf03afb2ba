/* SPDX-License-Identifier: MIT */
/* maps.c - see maps.h. */
#include "maps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SHIM_ARENA_NAME "/memfd:ublkzc:"

/* A hexadecimal number up to @end, which is skipped. */
static int hex(char **at, char end, uint64_t *ret)
{
	char *rest;

	errno = 0;
	*ret = strtoull(*at, &rest, 16);
	if (rest == *at || **at == '-' || *rest != end || errno)
		return -EINVAL;
	*at = rest + 1;
	return 0;
}

/* "START-END rwxs OFFSET MAJ:MIN INODE   NAME" */
int maps_parse(char *line, struct maps_entry *ret)
{
	char *at = line;
	uint64_t maj, min;
	char *rest;

	line[strcspn(line, "\n")] = '\0';
	if (hex(&at, '-', &ret->start) || hex(&at, ' ', &ret->end) || strlen(at) < 5 ||
	    at[4] != ' ')
		return -EINVAL;
	ret->readable = at[0] == 'r';
	ret->writable = at[1] == 'w';
	ret->shared = at[3] == 's';
	at += 5;
	if (hex(&at, ' ', &ret->offset) || hex(&at, ':', &maj) || hex(&at, ' ', &min))
		return -EINVAL;
	ret->dev = makedev((unsigned int)maj, (unsigned int)min);
	ret->ino = strtoull(at, &rest, 10);
	ret->name = rest + strspn(rest, " ");
	return ret->start < ret->end ? 0 : -EINVAL;
}

static bool wanted(const struct maps_entry *e)
{
	return e->shared && e->readable && e->end - e->start >= MAPS_SHARED_MIN &&
	       strncmp(e->name, SHIM_ARENA_NAME, strlen(SHIM_ARENA_NAME)) != 0;
}

int maps_each_shared(pid_t pid, int (*each)(const struct maps_entry *e, void *arg), void *arg)
{
	struct maps_entry e;
	char *line = NULL;
	size_t size = 0;
	char path[32];
	FILE *maps;
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "re");
	if (!maps)
		return -errno;
	while (!ret && getline(&line, &size, maps) > 0)
		if (maps_parse(line, &e) == 0 && wanted(&e))
			ret = each(&e, arg);
	if (!ret && ferror(maps))
		ret = -EIO;
	free(line);
	fclose(maps);
	return ret;
}

/* Is @fd (O_PATH will do) the memory that the line spoke of? */
static bool is_the_file(int fd, const struct maps_entry *e)
{
	struct statfs fs;
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_dev == e->dev && st.st_ino == e->ino &&
	       fstatfs(fd, &fs) == 0 &&
	       (fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC);
}

/*
 * The addresses may have come to mean another file meanwhile, a disk's, a device, one on
 * FUSE; merely to open that would do something to it.  So it is opened as a path, looked at,
 * and then opened.
 */
int maps_open(pid_t pid, const struct maps_entry *e)
{
	char path[96];
	int as_path, fd;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid, e->start,
		 e->end);
	as_path = open(path, O_PATH | O_CLOEXEC);
	if (as_path < 0)
		return -errno;
	fd = -ESTALE;
	if (is_the_file(as_path, e)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", as_path);
		fd = open(path, (e->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			fd = -errno;
	}
	close(as_path);
	return fd;
}
