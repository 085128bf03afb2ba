/* SPDX-License-Identifier: MIT */
/*
 * children.c - children that are made otherwise, and reached from outside.
 *
 * _Fork and clone promise a copy of the memory like fork; a child of vfork may use its
 * parent's; and others may read and write the memory of a child by the kernel's help.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"

#define MIB (1UL << 20)
#define SIZE (2 * MIB)

static unsigned char *block, *map;

static void make_memory(void)
{
	block = aligned(SIZE, 7);
	map = mapped(SIZE, 8);
}

static bool memory_is(unsigned char of_block, unsigned char of_map)
{
	return all_are(block, SIZE, of_block) && all_are(map, SIZE, of_map);
}

/* Sees what was, and changes it; nobody else sees that. */
static int change_memory(void *arg)
{
	void *more;

	(void)arg;
	CHECK(memory_is(7, 8));
	memset(block, 1, SIZE);
	memset(map, 2, SIZE);
	CHECK(posix_memalign(&more, 4096, 100000) == 0);
	memset(more, 3, 100000);
	free(more);
	usleep(20000);
	CHECK(memory_is(1, 2));
	free(block);
	CHECK(munmap(map, SIZE) == 0);
	return 0;
}

static void children_of_quiet_fork(void)
{
	make_memory();
	for (int i = 0; i < 10; i++) {
		pid_t pid = _Fork();

		CHECK(pid >= 0);
		if (!pid)
			_exit(change_memory(NULL));
		CHECK(memory_is(7, 8));
		expect_well(pid);
		CHECK(memory_is(7, 8));
	}
}

static void children_of_clone(void)
{
	unsigned char plain[65536];

	make_memory();
	for (int i = 0; i < 10; i++) {
		unsigned char *stack = i % 2 ? aligned(65536, 0) : plain;
		pid_t pid = clone(change_memory, stack + 65536, SIGCHLD, NULL);

		CHECK(pid >= 0);
		CHECK(memory_is(7, 8));
		expect_well(pid);
		CHECK(memory_is(7, 8));
		if (stack != plain)
			free(stack);
	}
}

/* ---- in its parent's memory ---- */

static void *volatile given;

static void children_of_vfork(void)
{
	make_memory();
	for (int i = 0; i < 20; i++) {
		void *taken = aligned(100000, 1);
		pid_t pid = vfork();

		CHECK(pid >= 0);
		if (!pid) {
			given = aligned_alloc(4096, 50000);
			memset(given, 9, 50000);
			free(taken);
			if (i % 2)
				execl("/bin/true", "true", (char *)NULL);
			_exit(0);
		}
		expect_well(pid);
		CHECK(all_are(given, 50000, 9));
		free(given);
		CHECK(memory_is(7, 8));
	}
}

static volatile bool done;

static void *keep_allocating(void *arg)
{
	for (unsigned int i = 0; !done; i++) {
		free(aligned(4096 + i * 7919 % 300000, 1));
		munmap(mapped(SIZE, 1), SIZE);
	}
	return arg;
}

static void spawned_meanwhile(void)
{
	char *const argv[] = { (char *)"true", NULL };
	posix_spawn_file_actions_t actions;
	pthread_t threads[3];

	posix_spawn_file_actions_init(&actions);
	CHECK(posix_spawn_file_actions_addclosefrom_np(&actions, 3) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, keep_allocating, NULL) == 0);
	for (int i = 0; i < 100 * patience(); i++) {
		pid_t pid;

		CHECK(posix_spawn(&pid, "/bin/true", &actions, NULL, argv, environ) == 0);
		expect_well(pid);
	}
	done = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* ---- from outside ---- */

static void change_to(pid_t pid, unsigned char *at, unsigned char value)
{
	struct iovec local = { &value, 1 }, remote = { at, 1 };

	CHECK(process_vm_writev(pid, &local, 1, &remote, 1, 0) == 1);
}

static void expect_at(pid_t pid, unsigned char *at, unsigned char value)
{
	struct iovec local, remote = { at, SIZE };
	unsigned char *copy = malloc(SIZE);

	local = (struct iovec){ copy, SIZE };
	CHECK(copy && process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)SIZE);
	CHECK(all_are(copy, SIZE, value));
	free(copy);
}

static void children_changed_from_outside(void)
{
	int go[2];
	pid_t pid;
	char byte;

	CHECK(pipe(go) == 0);
	make_memory();
	pid = child();
	if (!pid) {
		close(go[1]);
		CHECK(read(go[0], &byte, 1) == 0);
		CHECK(block[5] == 42 && block[6] == 7 && map[5] == 43 && map[6] == 8);
		_exit(0);
	}
	expect_at(pid, block, 7);
	expect_at(pid, map, 8);
	change_to(pid, block + 5, 42);
	change_to(pid, map + 5, 43);
	CHECK(memory_is(7, 8));
	close(go[1]);
	expect_well(pid);
}

static void children_traced(void)
{
	int status;
	pid_t pid;
	long word;

	make_memory();
	pid = child();
	if (!pid) {
		CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
		raise(SIGSTOP);
		_exit(block[0] != 99 || block[SIZE - 1] != 7);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	if (!WIFSTOPPED(status))
		skip("ptrace is forbidden");
	word = ptrace(PTRACE_PEEKDATA, pid, block, NULL);
	CHECK((word & 255) == 7);
	CHECK(ptrace(PTRACE_POKEDATA, pid, block, (word & ~255L) | 99) == 0);
	CHECK(memory_is(7, 8));
	CHECK(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
	expect_well(pid);
}

/* They are its own, and the memory is its parent's. */
static void limits_of_vfork_children(void)
{
	const struct rlimit limit = { 200UL << 30, RLIM_INFINITY };
	unsigned char *kept = aligned(65536, 1);
	unsigned long before = proc_kib("/proc/self/status", "VmSize");
	pid_t pid = vfork();

	if (!pid)
		_exit(setrlimit(RLIMIT_AS, &limit));
	expect_well(pid);
	CHECK(proc_kib("/proc/self/status", "VmSize") + 1024 > before);
	CHECK(all_are(kept, 65536, 1));
}

const struct attack child_attacks[] = {
	{ "children-of-quiet-fork", children_of_quiet_fork, "_Fork copies as fork does" },
	{ "children-of-clone", children_of_clone, "and clone" },
	{ "children-of-vfork", children_of_vfork, "vfork does not, and its child may allocate" },
	{ "limits-of-vfork-children", limits_of_vfork_children, "nor limit its parent" },
	{ "spawned-meanwhile", spawned_meanwhile, "while others allocate" },
	{ "children-changed-from-outside", children_changed_from_outside, "a child is reachable" },
	{ "children-traced", children_traced, "and may be traced" },
	{ 0 },
};
