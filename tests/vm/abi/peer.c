/* SPDX-License-Identifier: MIT */
/* peer.c - see peer.h. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int disk = -1;
static pthread_t reader;
static pid_t child;

static bool is_all(const uint8_t *mem, size_t len, uint8_t value)
{
	return mem[0] == value && memcmp(mem, mem + 1, len - 1) == 0;
}

static long map_private(struct peer *p)
{
	p->mem = mmap(NULL, p->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->mem == MAP_FAILED)
		return -errno;
	memset(p->mem, 0, p->len);
	return 0;
}

static long open_disk(const struct peer *p)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkb%zu", p->at);
	disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	return disk < 0 ? -errno : 0;
}

static long transfer(const struct peer *p)
{
	uint8_t *mem = p->mem + p->at;
	ssize_t done = p->op == PEER_READ ? pread(disk, mem, p->len, p->disk_at)
					  : pwrite(disk, mem, p->len, p->disk_at);

	return done < 0 ? -errno : done;
}

/* What is read while the peer is told other things. */
static struct {
	uint8_t *mem;
	size_t len;
	off_t disk_at;
} going_on;

static void *read_on(void *arg)
{
	long done = pread(disk, going_on.mem, going_on.len, going_on.disk_at);

	(void)arg;
	return (void *)(done < 0 ? -(long)errno : done);
}

static long begin_read(const struct peer *p)
{
	going_on.mem = p->mem + p->at;
	going_on.len = p->len;
	going_on.disk_at = p->disk_at;
	return pthread_create(&reader, NULL, read_on, NULL);
}

static long end_read(void)
{
	void *done;

	pthread_join(reader, &done);
	return (long)done;
}

static long move(struct peer *p)
{
	uint8_t *hole = mmap(NULL, p->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *mem = mremap(p->mem + p->at, p->len, p->len, MREMAP_MAYMOVE | MREMAP_FIXED, hole);

	if (mem == MAP_FAILED)
		return -errno;
	p->mem = mem;
	return 0;
}

static long protect(struct peer *p)
{
	if (mprotect(p->mem + p->at, p->len, PROT_READ) ||
	    mprotect(p->mem + p->at, p->len, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

static void touch(struct peer *p)
{
	for (size_t i = p->at; i < p->at + p->len; i += PAGE)
		p->mem[i] = p->value;
}

__attribute__((noreturn)) static void be_child(struct peer *p)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(disk); /* the device can be deleted while the child lives */
	for (;;) {
		sem_wait(&p->child.go);
		switch (p->child.op) {
		case PEER_CHILD_SAME:
			p->child.result = is_all(p->mem + p->at, p->len, p->value);
			break;
		case PEER_CHILD_FILL:
			memset(p->mem + p->at, p->value, p->len);
			p->child.result = 0;
			break;
		default:
			_exit(0);
		}
		sem_post(&p->child.done);
	}
}

static long tell_child(struct peer *p)
{
	p->child.op = p->op;
	sem_post(&p->child.go);
	if (p->op == PEER_END_CHILD)
		return waitpid(child, NULL, 0) == child ? 0 : -ECHILD;
	sem_wait(&p->child.done);
	return p->child.result;
}

static long do_it(struct peer *p)
{
	uint8_t *mem = p->mem + p->at;

	switch (p->op) {
	case PEER_MAP:
		return map_private(p);
	case PEER_OPEN:
		return open_disk(p);
	case PEER_CLOSE:
		return close(disk);
	case PEER_FILL:
		memset(mem, p->value, p->len);
		return 0;
	case PEER_SAME:
		return is_all(mem, p->len, p->value);
	case PEER_READ:
	case PEER_WRITE:
		return transfer(p);
	case PEER_BEGIN_READ:
		return begin_read(p);
	case PEER_END_READ:
		return end_read();
	case PEER_DISCARD:
		return madvise(mem, p->len, MADV_DONTNEED) ? -errno : 0;
	case PEER_UNMAP:
		return munmap(mem, p->len) ? -errno : 0;
	case PEER_MOVE:
		return move(p);
	case PEER_PROTECT:
		return protect(p);
	case PEER_FORK:
		child = fork();
		if (child == 0)
			be_child(p);
		return child < 0 ? -errno : 0;
	case PEER_CHILD_SAME:
	case PEER_CHILD_FILL:
	case PEER_END_CHILD:
		return tell_child(p);
	case PEER_EXEC:
		return execl("/bin/sleep", "sleep", "1000", NULL);
	case PEER_TOUCH:
		touch(p);
		return 0;
	case PEER_BREAK_HUGE:
		return prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	}
	return -EINVAL;
}

struct peer *peer_start(void)
{
	struct peer *p = shared_pages(1);
	pid_t pid;

	assert_true(sizeof(*p) <= PAGE);
	p->disk_at = ABI_TEST_OFFSET;
	assert_int_equal(sem_init(&p->go, 1, 0), 0);
	assert_int_equal(sem_init(&p->done, 1, 0), 0);
	assert_int_equal(sem_init(&p->child.go, 1, 0), 0);
	assert_int_equal(sem_init(&p->child.done, 1, 0), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid) {
		p->pid = pid;
		return p;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		while (sem_wait(&p->go))
			;
		p->result = do_it(p);
		sem_post(&p->done);
	}
}

void peer_end(struct peer *p)
{
	if (p->pid) {
		kill(p->pid, SIGKILL);
		waitpid(p->pid, NULL, 0);
	}
	munmap(p, PAGE);
}

long peer_with(struct peer *p, enum peer_op op, size_t at, size_t len, uint8_t value)
{
	p->op = op;
	p->at = at;
	p->len = len;
	p->value = value;
	sem_post(&p->go);
	while (sem_wait(&p->done))
		;
	return p->result;
}

long peer_do(struct peer *p, enum peer_op op, size_t at, size_t len)
{
	return peer_with(p, op, at, len, 0);
}

void peer_leave(struct peer *p, enum peer_op op)
{
	p->op = op;
	sem_post(&p->go);
}
