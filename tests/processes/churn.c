/* SPDX-License-Identifier: MIT */
/*
 * churn.c - a client in whose life everything happens, again and again.
 *
 * usage: churn FILE OFFSET SEED [steer]
 *
 * Each turn opens FILE for direct I/O, allocates in one of three ways, writes and
 * reads back SIZE bytes at OFFSET, sometimes forks, and gives all back, at random.
 * Without "steer" it goes on until it is killed; with it each number on standard
 * input asks for so many turns, and "done" says that they are over: in between it
 * can be looked at.  /proc/PID/comm tells what it is doing.  Exits with 1, and
 * why, when something is not as any program may expect.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (2UL << 20)
#define IO (128UL << 10)

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "churn: line %d: %s (errno %d)\n", __LINE__, #what,        \
				errno);                                                            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

enum kind { ALIGNED, MALLOC, MAPPED, KINDS };

struct memory {
	enum kind kind;
	unsigned char *at;
};

static const char *path;
static off_t offset;

static void now(const char *stage)
{
	prctl(PR_SET_NAME, stage);
}

static struct memory allocate(void)
{
	struct memory m = { .kind = (enum kind)(random() % KINDS) };
	void *p = NULL;

	now("add");
	if (m.kind == ALIGNED)
		CHECK(posix_memalign(&p, 4096, SIZE) == 0);
	else if (m.kind == MALLOC)
		p = malloc(SIZE);
	else
		p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p && p != MAP_FAILED);
	m.at = p;
	return m;
}

static void give_back(struct memory *m)
{
	now("remove");
	if (m->kind == MAPPED)
		CHECK(munmap(m->at, SIZE) == 0);
	else
		free(m->at);
}

/* Direct I/O wants an aligned buffer, whatever the allocation is. */
static unsigned char *aligned(struct memory *m)
{
	return m->at + (-(size_t)m->at & 4095);
}

static void do_io(int fd, struct memory *m)
{
	unsigned char *p = aligned(m);
	unsigned char value = (unsigned char)random();

	now("io");
	memset(p, value, IO);
	CHECK(pwrite(fd, p, IO, offset) == (ssize_t)IO);
	memset(p, ~value, IO);
	CHECK(pread(fd, p, IO, offset) == (ssize_t)IO);
	for (size_t i = 0; i < IO; i++)
		CHECK(p[i] == value);
}

/* The child sees what was there when it was made, and reads on its own. */
static void fork_once(int fd, struct memory *m)
{
	unsigned char *p = aligned(m);
	unsigned char was = p[0];
	int status;
	pid_t pid;

	now("fork");
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		for (size_t i = 0; i < IO; i++)
			CHECK(p[i] == was);
		CHECK(pread(fd, p, IO, offset) == (ssize_t)IO);
		_exit(0);
	}
	memset(p, ~was, IO);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void turn(void)
{
	struct memory m[2];
	int fd;

	now("connect");
	fd = open(path, O_RDWR | O_DIRECT);
	CHECK(fd >= 0);
	for (int i = 0; i < 2; i++)
		m[i] = allocate();
	for (int i = 0; i < 4; i++)
		do_io(fd, &m[random() % 2]);
	if (random() % 2)
		fork_once(fd, &m[0]);
	for (int i = 0; i < 2; i++)
		give_back(&m[i]);
	close(fd);
}

static void steered(void)
{
	char line[32];

	now("idle");
	while (fgets(line, sizeof(line), stdin)) {
		for (long n = strtol(line, NULL, 10); n > 0; n--)
			turn();
		now("idle");
		puts("done");
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	if (argc < 4 || argc > 5 || (argc == 5 && strcmp(argv[4], "steer") != 0)) {
		fputs("usage: churn FILE OFFSET SEED [steer]\n", stderr);
		return 2;
	}
	path = argv[1];
	offset = strtoll(argv[2], NULL, 10);
	srandom((unsigned int)strtoul(argv[3], NULL, 10));
	if (argc == 5)
		steered();
	else
		for (;;)
			turn();
	return 0;
}
