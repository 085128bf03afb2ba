/* SPDX-License-Identifier: MIT */
/*
 * state.c - the files below /run/ublkzc.
 *
 * Process numbers in them are for people: they may have been given to somebody else, or
 * be those of another pid namespace.
 */
#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "arguments.h"
#include "common/wire.h"
#include "lock.h"

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

/* All of its bytes, or an error: a store to a file in a full file system is a SIGBUS. */
static int fill(int fd, size_t size, struct state **ret)
{
	int err = posix_fallocate(fd, 0, (off_t)size);
	void *map;

	if (err)
		return -err;
	if (fchmod(fd, 0644) < 0)
		return -errno;
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*ret = map;
	return 0;
}

int state_create(unsigned int device, unsigned int nr_queues, struct state **ret, int *ret_fd)
{
	size_t size = state_size(nr_queues);
	char path[64];
	char next[64 + 4];
	int err;
	int fd;

	state_path(path, sizeof(path), device);
	snprintf(next, sizeof(next), "%s.new", path);
	unlink(next);
	fd = open(next, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	err = fill(fd, size, ret);
	if (!err) {
		(*ret)->version = STATE_VERSION;
		(*ret)->device = device;
		(*ret)->pid = getpid();
		(*ret)->nr_queues = nr_queues;
		(*ret)->magic = STATE_MAGIC;
		*ret_fd = fd;
		if (rename(next, path) == 0)
			return 0;
		err = -errno;
		munmap(*ret, size);
	}
	unlink(next);
	close(fd);
	return err;
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
	lock_path(path, sizeof(path), device);
	unlink(path);
}

/* Who may not ask for the lock asks the socket: the server's keeper has it open too. */
static bool somebody_listens(unsigned int device)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool refused;

	if (fd < 0)
		return true;
	snprintf(addr.sun_path, sizeof(addr.sun_path), WIRE_SOCKET_FORMAT, WIRE_DIR, device);
	refused = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 &&
		  (errno == ECONNREFUSED || errno == ENOENT);
	close(fd);
	return !refused;
}

bool state_alive(const struct state *state)
{
	int fd = lock_open(state->device);
	int held;

	if (fd == -ENOENT)
		return false;
	if (fd < 0)
		return somebody_listens(state->device);
	held = lock_held(fd);
	close(fd);
	return held != 0;
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
