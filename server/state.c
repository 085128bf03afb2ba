/* SPDX-License-Identifier: MIT */
/*
 * state.c - the files below /run/ublkzc.
 *
 * A server holds a lock (flock) on its state file for as long as it lives;
 * the file of a dead one is recognised by that, not by a process number that
 * may have been given to somebody else.
 */
#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arguments.h"
#include "common/wire.h"

static void state_path(char *buf, size_t size, unsigned int device)
{
	snprintf(buf, size, STATE_DIR "/ublkb%u.stat", device);
}

static size_t state_size(unsigned int nr_queues)
{
	return sizeof(struct state) + nr_queues * sizeof(struct queue_counters);
}

static bool state_valid(const struct state *state, size_t size)
{
	return size >= sizeof(*state) && state->magic == STATE_MAGIC &&
	       state->version == STATE_VERSION && size >= state_size(state->nr_queues);
}

int state_create(unsigned int device, unsigned int nr_queues, struct state **ret, int *ret_fd)
{
	size_t size = state_size(nr_queues);
	char path[64];
	void *map;
	int err;
	int fd;

	if (mkdir(STATE_DIR, 0755) < 0 && errno != EEXIST)
		return -errno;
	state_path(path, sizeof(path), device);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		err = errno == EWOULDBLOCK ? -EEXIST : -errno;
		close(fd);
		return err;
	}
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)size) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		err = -errno;
		close(fd);
		return err;
	}
	*ret = map;
	(*ret)->version = STATE_VERSION;
	(*ret)->device = device;
	(*ret)->pid = getpid();
	(*ret)->nr_queues = nr_queues;
	(*ret)->magic = STATE_MAGIC;
	*ret_fd = fd;
	return 0;
}

int state_adopt(int fd, struct state **ret)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st) < 0)
		return -errno;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	if (!state_valid(map, (size_t)st.st_size)) {
		munmap(map, (size_t)st.st_size);
		return -EBADMSG;
	}
	*ret = map;
	return 0;
}

void state_taken_over(struct state *state)
{
	state->pid = getpid();
	state->recoveries++;
}

int state_open(unsigned int device, const struct state **ret)
{
	struct stat st;
	char path[64];
	void *map;
	int fd;

	state_path(path, sizeof(path), device);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(struct state)) {
		close(fd);
		return -EBADMSG;
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return -errno;
	if (!state_valid(map, (size_t)st.st_size)) {
		munmap(map, (size_t)st.st_size);
		return -EBADMSG;
	}
	*ret = map;
	return 0;
}

void state_close(const struct state *state)
{
	if (state)
		munmap((void *)state, state_size(state->nr_queues));
}

void state_remove(unsigned int device)
{
	char path[64];

	state_path(path, sizeof(path), device);
	unlink(path);
	arguments_path(path, sizeof(path), device);
	unlink(path);
	snprintf(path, sizeof(path), WIRE_SOCKET_FORMAT, WIRE_DIR, device);
	unlink(path);
	snprintf(path, sizeof(path), WIRE_SOCKET_FORMAT, WIRE_LEGACY_DIR, device);
	unlink(path);
}

bool state_alive(const struct state *state)
{
	char path[64];
	bool alive;
	int fd;

	state_path(path, sizeof(path), state->device);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	alive = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
	close(fd);
	return alive;
}

static int compare_numbers(const void *a, const void *b)
{
	unsigned int x = *(const unsigned int *)a;
	unsigned int y = *(const unsigned int *)b;

	return (x > y) - (x < y);
}

static int collect(DIR *dir, unsigned int **ret, unsigned int *ret_nr)
{
	struct dirent *entry;

	while ((entry = readdir(dir))) {
		unsigned int device;
		int end = 0;
		void *bigger;

		if (sscanf(entry->d_name, "ublkb%u.stat%n", &device, &end) != 1 || !end ||
		    entry->d_name[end])
			continue;
		bigger = reallocarray(*ret, *ret_nr + 1, sizeof(**ret));
		if (!bigger)
			return -ENOMEM;
		*ret = bigger;
		(*ret)[(*ret_nr)++] = device;
	}
	return 0;
}

int state_for_each(int (*each)(unsigned int device, void *arg), void *arg)
{
	unsigned int *devices = NULL;
	unsigned int nr = 0;
	DIR *dir = opendir(STATE_DIR);
	int ret;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	ret = collect(dir, &devices, &nr);
	closedir(dir);
	if (nr)
		qsort(devices, nr, sizeof(*devices), compare_numbers);
	for (unsigned int i = 0; i < nr && !ret; i++)
		ret = each(devices[i], arg);
	free(devices);
	return ret;
}

void state_sum(const struct state *state, struct queue_counters *ret)
{
	/* Every field of the structure is a counter, so it is summed as an array. */
	counter_t *sum = (counter_t *)ret;
	const size_t nr = sizeof(*ret) / sizeof(counter_t);

	memset(ret, 0, sizeof(*ret));
	for (unsigned int q = 0; q < state->nr_queues; q++) {
		const counter_t *from = (const counter_t *)&state->queues[q];

		for (size_t i = 0; i < nr; i++)
			counter_add(&sum[i], counter_get(&from[i]));
	}
}
