/* SPDX-License-Identifier: MIT */
/*
 * others.c - threads that allocate, map and do I/O while another one forks.
 *
 * No time is measured: the fork is held up, in handlers before it, in its child and after it,
 * until the others have done all of it.  If they waited for the fork, nobody would ever go on.
 */
#include <stdlib.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "hostile.h"

#define MIB (1UL << 20)

/* Bytes that say: begin, and done. */
static int begin[2], done[2];
static unsigned char *buffer;

static void work(void)
{
	int fd = open_direct();

	for (size_t len = 4096; len <= 8 * MIB; len *= 4) {
		void *p;
		unsigned char *map = mapped(len, 3);

		CHECK(posix_memalign(&p, 4096, len) == 0);
		memset(p, 2, len < MIB ? len : MIB);
		free(p);
		p = malloc(len);
		CHECK(p);
		p = realloc(p, 2 * len);
		CHECK(p);
		free(p);
		CHECK(madvise(map, len, MADV_DONTNEED) == 0 && all_are(map, len, 0));
		CHECK(munmap(map, len) == 0);
	}
	CHECK(pwrite(fd, buffer, 65536, 0) == 65536);
	CHECK(pread(fd, buffer, 65536, 0) == 65536);
	close(fd);
}

static void say(const int *pipe)
{
	CHECK(write(pipe[1], "", 1) == 1);
}

static void wait_for(const int *pipe)
{
	char byte;

	CHECK(read(pipe[0], &byte, 1) == 1);
}

static void *work_in_turns(void *arg)
{
	for (;;) {
		wait_for(begin);
		work();
		say(done);
	}
	return arg;
}

/* In a handler of fork: others work now, and it does not go on before they have. */
static void others_work(void)
{
	say(begin);
	wait_for(done);
}

static void fork_with(size_t len)
{
	unsigned char *block = aligned(len, 1);
	unsigned char *map = mapped(2 * MIB, 4);
	pid_t pid = child();

	if (pid == 0)
		_exit(all_are(block, len, 1) && all_are(map, 2 * MIB, 4) ? 0 : 1);
	expect_well(pid);
	free(block);
	munmap(map, 2 * MIB);
}

static void others_go_on(void)
{
	void (**const handlers[])(void) = { &first_prepare, &first_child, &first_parent };
	pthread_t thread;

	buffer = aligned(65536, 5);
	CHECK(pipe(begin) == 0 && pipe(done) == 0);
	CHECK(pthread_create(&thread, NULL, work_in_turns, NULL) == 0);
	for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
		*handlers[i] = others_work;
		fork_with(MIB);
		fork_with(80 * MIB); /* more than is copied by default */
		*handlers[i] = NULL;
	}
}

const struct attack other_attacks[] = {
	{ "others-go-on-during-fork", others_go_on, "nobody waits for another one's fork" },
	{ NULL, NULL, NULL },
};
