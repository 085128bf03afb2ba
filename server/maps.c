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
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "memory_fs.h"

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
	at += strcspn(at, " "); /* the inode number */
	ret->name = at + strspn(at, " ");
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

int maps_open(pid_t pid, const struct maps_entry *e)
{
	char path[96];
	struct statfs fs;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid, e->start,
		 e->end);
	/* A disk's file must not even be opened for writing, FUSE's not even be asked. */
	if (!memory_fs(pid, e->dev))
		return -EMEDIUMTYPE;
	fd = open(path, (e->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	/* The name may have come to mean another file meanwhile. */
	if (fstatfs(fd, &fs) < 0 || (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC)) {
		close(fd);
		return -EMEDIUMTYPE;
	}
	return fd;
}
