/* SPDX-License-Identifier: MIT */
/* Shared memory of processes, found in /proc and registered with a fake driver. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/attach.h"
#include "server/maps.h"
#include "server/memory_fs.h"
#include "server/scan.h"
#include "tests/unit/cmocka_all.h"

#define MIB (1UL << 20)

static struct registry registry;
static struct buffers b;
static struct scan scan;
static unsigned int next_index;
static int refuse_with;

/* A driver that answers when the test lets it. */
static struct asked {
	void *cookie;
	bool registering;
} pending[64];
static unsigned int nr_pending;

static int fake_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	(void)arg;
	(void)reg;
	pending[nr_pending++] = (struct asked){ cookie, true };
	return 0;
}

static int fake_unreg(void *arg, unsigned int index, void *cookie)
{
	(void)arg;
	(void)index;
	pending[nr_pending++] = (struct asked){ cookie, false };
	return 0;
}

static void driver_answers(void)
{
	while (nr_pending) {
		struct asked a = pending[0];

		memmove(pending, pending + 1, --nr_pending * sizeof(a));
		buffers_finished(&b, a.cookie,
				 !a.registering ? 0
				 : refuse_with	? refuse_with
						: (int)next_index++);
	}
}

static unsigned int nr_done;

static void done(struct scan *s, void *arg)
{
	(void)s;
	(void)arg;
	nr_done++;
}

static int setup(void **state)
{
	(void)state;
	memset(&registry, 0, sizeof(registry));
	b = (struct buffers){
		.registry = &registry,
		.backend = { .reg = fake_reg, .unreg = fake_unreg },
		.max_bytes = 1UL << 30,
	};
	scan = (struct scan){ .buffers = &b, .max_bytes = 1UL << 30, .done = done };
	nr_pending = nr_done = next_index = 0;
	refuse_with = 0;
	return 0;
}

/* map_files wants CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. */
static bool may_open(void)
{
	char *p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct maps_entry e = { .start = (uint64_t)p, .end = (uint64_t)p + MIB, .writable = true };
	int memory = memfd_create("memory", 0);
	struct stat st;
	int fd;

	assert_int_equal(fstat(memory, &st), 0);
	close(memory);
	e.dev = st.st_dev; /* anonymous shared memory is on the same file system */
	fd = maps_open(getpid(), &e);

	munmap(p, MIB);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void need_root(void)
{
	if (!may_open()) {
		print_message("[  SKIPPED ] needs CAP_SYS_ADMIN for /proc/PID/map_files\n");
		skip();
	}
}

/*
 * A process whose memory is looked at: not this one, which maps the same pages
 * as soon as they are registered.  Each stage is entered when the test says so.
 */
static struct {
	pid_t pid;
	int go, there;
} other;

static int stage_input; /* in the other process */

static void start_other(void (*const *stages)(void))
{
	int go[2], there[2];
	char byte;

	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(there), 0);
	other.pid = fork();
	assert_true(other.pid >= 0);
	if (other.pid == 0) {
		close(go[1]);
		stage_input = go[0];
		for (; *stages && read(go[0], &byte, 1) == 1; stages++) {
			(*stages)();
			if (write(there[1], "", 1) != 1)
				_exit(1);
		}
		_exit(read(go[0], &byte, 1) > 0);
	}
	close(go[0]);
	close(there[1]);
	other.go = go[1];
	other.there = there[0];
}

static void next_stage(void)
{
	char byte;

	assert_int_equal(write(other.go, "", 1), 1);
	assert_int_equal(read(other.there, &byte, 1), 1);
}

static void end_other(void)
{
	if (!other.pid)
		return;
	kill(other.pid, SIGKILL);
	waitpid(other.pid, NULL, 0);
	close(other.go);
	close(other.there);
	other.pid = 0;
}

static int teardown(void **state)
{
	(void)state;
	end_other();
	scan_forget(&scan);
	buffers_close(&b);
	return 0;
}

static char *share(size_t len)
{
	return mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void look(pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	assert_true(pidfd >= 0);
	scan_begin(&scan, true);
	scan_process(&scan, pid, pidfd);
	scan_end(&scan);
	close(pidfd);
}

static int parse(const char *text, struct maps_entry *ret)
{
	static char line[512];

	snprintf(line, sizeof(line), "%s", text);
	return maps_parse(line, ret);
}

static void parses_lines(void **state)
{
	struct maps_entry e;

	(void)state;
	assert_int_equal(parse("7f0000000000-7f0000100000 rw-s 00002000 00:01 2051       "
			       "/dev/zero (deleted)\n",
			       &e),
			 0);
	assert_int_equal(e.start, 0x7f0000000000);
	assert_int_equal(e.end, 0x7f0000100000);
	assert_int_equal(e.offset, 0x2000);
	assert_true(e.readable && e.writable && e.shared);
	assert_string_equal(e.name, "/dev/zero (deleted)");
	assert_int_equal(parse("1000-2000 r--p 0 08:01 7", &e), 0);
	assert_false(e.writable || e.shared);
	assert_string_equal(e.name, "");
}

static void refuses_lines(void **state)
{
	static const char *const bad[] = {
		"",
		"1000",
		"1000-",
		"1000-2000",
		"1000-2000 rw-s",
		"1000-2000 rw-s 0",
		"1000-2000 rw-s 0 00:01",
		"2000-1000 rw-s 0 00:01 5 x",
		"1000-1000 rw-s 0 00:01 5 x",
		"-1000-2000 rw-s 0 00:01 5 x",
		"x000-2000 rw-s 0 00:01 5 x",
		"1000-2000 rw 0 00:01 5 x",
		"11112222333344445-2 rw-s 0 00:01 5 x",
	};
	struct maps_entry e;

	(void)state;
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse(bad[i], &e), -EINVAL);
}

static char *anonymous, *sysv;
static int parts_fd;

static void map_each_kind(void)
{
	int segment = shmget(IPC_PRIVATE, 3 * MIB, 0600);
	int fd = memfd_create("ublkzc:1:0", 0);

	sysv = shmat(segment, NULL, 0);
	shmctl(segment, IPC_RMID, NULL);
	anonymous = share(2 * MIB);
	share(MIB / 2);		     /* too small */
	if (ftruncate(fd, MIB) == 0) /* an arena of the shim */
		mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	fd = memfd_create("other", 0);
	if (ftruncate(fd, 4 * MIB) == 0)
		mmap(NULL, 4 * MIB, PROT_READ, MAP_SHARED, fd, 0);
}

static void unmap_two(void)
{
	shmdt(sysv);
	munmap(anonymous, 2 * MIB);
}

static void finds_each_kind_once(void **state)
{
	static void (*const stages[])(void) = { map_each_kind, unmap_two, NULL };

	(void)state;
	need_root();
	start_other(stages);
	next_stage();
	look(other.pid);
	assert_int_equal(nr_done, 0);
	assert_int_equal(scan.nr, 3);
	assert_int_equal(scan.bytes, 9 * MIB);
	driver_answers();
	assert_int_equal(nr_done, 1);
	assert_int_equal(b.nr, 3);

	/* Nothing new: nothing is asked of the driver. */
	look(other.pid);
	assert_int_equal(nr_pending, 0);
	assert_int_equal(nr_done, 2);
	assert_int_equal(scan.nr, 3);

	/* What is unmapped is given up. */
	next_stage();
	look(other.pid);
	assert_int_equal(nr_pending, 2);
	driver_answers();
	assert_int_equal(b.nr, 1);
	assert_int_equal(scan.nr, 1);
}

static void map_middle(void)
{
	parts_fd = memfd_create("parts", 0);
	if (ftruncate(parts_fd, 8 * MIB) == 0)
		mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, parts_fd, 2 * MIB);
}

static void map_all(void)
{
	mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, parts_fd, 0);
}

static void map_more_than_there_is(void)
{
	mmap(NULL, 16 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, parts_fd, 0);
}

static void parts_of_a_file_never_overlap(void **state)
{
	static void (*const stages[])(void) = { map_middle, map_all, map_more_than_there_is, NULL };

	(void)state;
	need_root();
	start_other(stages);
	next_stage();
	look(other.pid);
	driver_answers();
	assert_int_equal(b.nr, 1);
	next_stage();
	look(other.pid);
	driver_answers();
	assert_int_equal(b.nr, 3); /* before, middle, after */
	assert_int_equal(b.bytes, 8 * MIB);
	assert_int_equal(scan.bytes, 8 * MIB);
	next_stage();
	look(other.pid);
	assert_int_equal(nr_pending, 0);
	assert_int_equal(scan.refused, 0);
}

static void map_two(void)
{
	anonymous = share(2 * MIB);
}

static void unmap_it(void)
{
	munmap(anonymous, 2 * MIB);
}

static void refusals_are_counted(void **state)
{
	static void (*const stages[])(void) = { map_two, NULL };

	(void)state;
	need_root();
	start_other(stages);
	next_stage();
	scan.max_bytes = MIB;
	look(other.pid);
	assert_int_equal(scan.refused, 1);
	assert_int_equal(scan.why, WIRE_OVER_BUDGET);
	assert_int_equal(nr_done, 1);
	scan.max_bytes = 4 * MIB;
	refuse_with = -ENOMEM;
	look(other.pid);
	driver_answers();
	assert_int_equal(scan.refused, 1);
	assert_int_equal(scan.why, WIRE_KERNEL_REFUSED);
	assert_int_equal(scan.nr, 0);
	assert_int_equal(scan.bytes, 0);
	assert_int_equal(nr_done, 2);
}

/* A round that begins before the last one is answered ends once, and right. */
static void rounds_overtake(void **state)
{
	static void (*const stages[])(void) = { map_two, unmap_it, NULL };

	(void)state;
	need_root();
	start_other(stages);
	next_stage();
	look(other.pid);
	assert_int_equal(nr_done, 0);
	next_stage();
	look(other.pid);
	assert_int_equal(nr_done, 1);
	assert_int_equal(scan.nr, 0);
	driver_answers(); /* late: nobody wants it any more */
	assert_int_equal(nr_done, 1);
	assert_int_equal(b.nr, 0);
}

static void the_dead_have_no_memory(void **state)
{
	static void (*const stages[])(void) = { map_two, NULL };
	pid_t dead = fork();
	int pidfd;

	(void)state;
	need_root();
	if (dead == 0)
		pause();
	pidfd = (int)syscall(SYS_pidfd_open, dead, 0);
	kill(dead, SIGKILL);
	waitpid(dead, NULL, 0);
	/* Its number is somebody else's now. */
	start_other(stages);
	next_stage();
	scan_begin(&scan, true);
	assert_int_equal(scan_process(&scan, other.pid, pidfd), -ESRCH);
	scan_end(&scan);
	assert_int_equal(scan.nr, 0);
	close(pidfd);
}

static struct {
	unsigned int nr;
	void *asker;
	uint32_t seq;
} answer;

static void attached(void *arg, void *asker, uint32_t seq, pid_t pid)
{
	(void)arg;
	(void)pid;
	answer.nr++;
	answer.asker = asker;
	answer.seq = seq;
}

/* The child shares its parent's, and has its own. */
static void fork_with_more(void)
{
	int ready[2];
	char byte;

	if (pipe(ready) < 0 || fork() != 0) {
		close(ready[1]);
		if (read(ready[0], &byte, 1) < 0)
			_exit(1);
		return;
	}
	share(3 * MIB);
	if (write(ready[1], "", 1) != 1)
		_exit(1);
	/* until the test closes it: any descriptor of the other end will do */
	for (;;)
		if (read(stage_input, &byte, 1) <= 0)
			_exit(0);
}

static void an_attachment_follows_a_family(void **state)
{
	struct attachments a = { .buffers = &b, .max_bytes = 1UL << 30, .attached = attached };
	struct attach_info info;
	static void (*const stages[])(void) = { map_two, fork_with_more, NULL };

	(void)state;
	need_root();
	answer.nr = 0;
	start_other(stages);
	next_stage();
	assert_int_equal(attach_add(&a, other.pid, &a, 7), 0);
	assert_int_equal(answer.nr, 0);
	driver_answers();
	assert_int_equal(answer.nr, 1);
	assert_ptr_equal(answer.asker, &a);
	assert_int_equal(answer.seq, 7);
	assert_int_equal(attach_find(&a, other.pid, &info), 0);
	assert_int_equal(info.buffers, 1);
	assert_int_equal(info.processes, 1);

	next_stage();
	attach_tick(&a, 1);
	driver_answers();
	assert_int_equal(attach_get(&a, 0, &info), 0);
	assert_int_equal(info.processes, 2);
	assert_int_equal(info.buffers, 2);
	assert_int_equal(info.bytes, 5 * MIB);
	assert_int_equal(attach_get(&a, 1, &info), -ENOENT);

	/* The parent dies, its child lives on with both. */
	kill(other.pid, SIGKILL);
	waitpid(other.pid, NULL, 0);
	attach_tick(&a, 2);
	assert_int_equal(attach_get(&a, 0, &info), 0);
	assert_int_equal(info.processes, 1);
	assert_int_equal(info.buffers, 2);
	/* It ends when its pipe does. */
	close(other.go);
	close(other.there);
	other.pid = 0;
	for (time_t t = 3; a.nr && t < 1000; t++) {
		usleep(1000);
		attach_tick(&a, t);
	}
	assert_int_equal(a.nr, 0);
	driver_answers();
	assert_int_equal(b.nr, 0);
}

static void nobody_is_attached_that_is_not_there(void **state)
{
	struct attachments a = { .buffers = &b, .max_bytes = MIB, .attached = attached };
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	assert_int_equal(attach_add(&a, pid, &a, 1), -ESRCH);
	assert_int_equal(a.nr, 0);
	assert_int_equal(attach_remove(&a, pid), -ENOENT);
}

static dev_t device_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_dev;
}

static void memory_is_known_by_its_device(void **state)
{
	int huge = memfd_create("huge", MFD_HUGETLB);
	struct stat st;

	(void)state;
	assert_true(memory_fs(getpid(), device_of("/dev/shm")));
	assert_false(memory_fs(getpid(), device_of("/proc"))); /* no disk either */
	assert_false(memory_fs(getpid(), device_of("/")));
	if (huge >= 0) {
		assert_int_equal(fstat(huge, &st), 0);
		assert_true(memory_fs(getpid(), st.st_dev));
		close(huge);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_lines),
		cmocka_unit_test(refuses_lines),
		cmocka_unit_test(memory_is_known_by_its_device),
		cmocka_unit_test_setup_teardown(finds_each_kind_once, setup, teardown),
		cmocka_unit_test_setup_teardown(parts_of_a_file_never_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(rounds_overtake, setup, teardown),
		cmocka_unit_test_setup_teardown(the_dead_have_no_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(an_attachment_follows_a_family, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_is_attached_that_is_not_there, setup,
						teardown),
	};

	alarm(60); /* no test may hang */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
