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

#include "server/life/worker.h"
#include "server/memory/attach.h"
#include "server/memory/maps.h"
#include "server/memory/memory_fs.h"
#include "server/memory/scan.h"
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
	scan = (struct scan){ .buffers = &b,
			      .account = { .max_bytes = 1UL << 30, .max_slices = 1000, .max_files = 1000 },
			      .done = done };
	nr_pending = nr_done = next_index = 0;
	refuse_with = 0;
	return 0;
}

/* Of the file behind a mapping of ours. */
static int find_ino(const struct maps_entry *e, void *arg)
{
	struct maps_entry *wanted = arg;

	if (e->start <= wanted->start && e->end > wanted->start)
		*wanted = *e;
	return 0;
}

/* map_files wants CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. */
static bool may_open(void)
{
	char *p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct maps_entry e = { .start = (uint64_t)p };
	int fd;

	assert_int_equal(maps_each_shared(getpid(), find_ino, &e), 0);
	assert_true(e.ino != 0);
	fd = maps_open(getpid(), &e);
	if (fd >= 0)
		close(fd);
	/* What the line said is not what is there any more. */
	e.ino++;
	assert_true(maps_open(getpid(), &e) < 0);
	munmap(p, MIB);
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
	worker_wait();
	scan_forget(&scan);
	buffers_close(&b);
	/* The next test's processes would inherit what is still mapped. */
	while (worker_pending(WORKER_CLOSE))
		usleep(1000);
	return 0;
}

/* Only what was touched exists. */
static char *touch(char *at, size_t len)
{
	memset(at, 1, len);
	return at;
}

static char *share(size_t len)
{
	return touch(mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
		     len);
}

static void look(pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	assert_true(pidfd >= 0);
	assert_int_equal(scan_start(&scan, 0, pid, pidfd), 0);
	close(pidfd);
	worker_wait();
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

	sysv = touch(shmat(segment, NULL, 0), 3 * MIB);
	shmctl(segment, IPC_RMID, NULL);
	anonymous = share(2 * MIB);
	share(MIB / 2);		     /* too small */
	if (ftruncate(fd, MIB) == 0) /* an arena of the shim */
		touch(mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MIB);
	fd = memfd_create("other", 0);
	for (unsigned int i = 0; i < 4 * MIB; i += 4096)
		if (ftruncate(fd, 4 * MIB) < 0 || pwrite(fd, "", 1, i) != 1)
			_exit(1);
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
	assert_int_equal(scan_bytes(&scan), 0);
	driver_answers();
	assert_int_equal(scan_bytes(&scan), 9 * MIB);
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
		touch(mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, parts_fd, 2 * MIB),
		      2 * MIB);
}

static void map_all(void)
{
	touch(mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, parts_fd, 0), 8 * MIB);
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
	driver_answers();
	assert_int_equal(b.nr, 1); /* what was there is taken in */
	assert_int_equal(b.bytes, 8 * MIB);
	assert_int_equal(scan_bytes(&scan), 8 * MIB);
	next_stage();
	look(other.pid);
	assert_int_equal(nr_pending, 0);
	assert_int_equal(scan.refused, 0);
}

static void map_two(void)
{
	anonymous = share(2 * MIB);
}

static void map_much_for_nothing(void)
{
	anonymous = mmap(NULL, 1536 * MIB, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static void touch_a_part(void)
{
	touch(anonymous + 512 * MIB, 3 * MIB);
}

/* Shared memory that nobody has ever touched costs nothing; what is touched is registered. */
static void untouched_memory_costs_nothing(void **state)
{
	static void (*const stages[])(void) = { map_much_for_nothing, touch_a_part, NULL };
	uint64_t copied = 0;

	(void)state;
	need_root();
	start_other(stages);
	next_stage();
	look(other.pid);
	assert_int_equal(nr_done, 1);
	assert_int_equal(scan.nr, 1);
	assert_int_equal(nr_pending, 0);
	assert_int_equal(b.bytes, 0);
	next_stage();
	for (int i = 0; i < 100 && !nr_pending; i++) {
		usleep(10000);
		buffers_tick(&b, ++copied);
		worker_wait();
	}
	driver_answers();
	assert_int_equal(b.bytes, 3 * MIB);
	assert_int_equal(scan_bytes(&scan), 3 * MIB);
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
	scan.account.max_bytes = 0;
	look(other.pid);
	assert_int_equal(scan.refused, 1);
	assert_int_equal(scan.why, WIRE_OVER_BUDGET);
	assert_int_equal(nr_done, 1);
	scan.account.max_bytes = 4 * MIB;
	refuse_with = -ENOMEM;
	look(other.pid);
	driver_answers();
	assert_int_equal(scan.refused, 1);
	assert_int_equal(scan.why, WIRE_KERNEL_REFUSED);
	assert_int_equal(scan.nr, 0);
	assert_int_equal(scan_bytes(&scan), 0);
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
	static struct scan_found found;
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
	assert_int_equal(scan_look(&found, other.pid, pidfd), -ESRCH);
	assert_int_equal(found.nr, 0);
	assert_int_equal(scan_start(&scan, 0, other.pid, pidfd), 0);
	worker_wait();
	assert_int_equal(scan.nr, 0);
	assert_int_equal(nr_done, 1);
	close(pidfd);
}

static struct {
	unsigned int nr;
	uint32_t seqs; /* bits */
} answer;

static void attached(void *arg, void *asker, uint32_t seq, pid_t pid)
{
	(void)arg;
	(void)asker;
	(void)pid;
	answer.nr++;
	answer.seqs |= 1U << seq;
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
	answer.nr = answer.seqs = 0;
	start_other(stages);
	next_stage();
	assert_int_equal(attach_add(&a, other.pid, &a, 7), 0);
	assert_int_equal(attach_add(&a, other.pid, &b, 8), 0); /* both are told */
	worker_wait();
	assert_int_equal(answer.nr, 0);
	driver_answers();
	worker_wait();
	driver_answers();
	assert_int_equal(answer.nr, 2);
	assert_true(answer.seqs == (1 << 7 | 1 << 8));
	assert_int_equal(attach_find(&a, other.pid, &info), 0);
	assert_int_equal(info.buffers, 1);
	assert_int_equal(info.processes, 1);

	next_stage();
	attach_tick(&a, 1);
	worker_wait();
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
	worker_wait();
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
		worker_wait();
	}
	assert_int_equal(a.nr, 0);
	driver_answers();
	assert_int_equal(b.nr, 0);
}

/* What was attached has ended, and its number is another's: ours, who have a child. */
static void a_number_that_is_given_away_is_nobodys(void **state)
{
	struct attachments a = { .buffers = &b, .max_bytes = 1UL << 30, .attached = attached };
	static void (*const stages[])(void) = { map_two, NULL };
	pid_t dead = fork();
	int pidfd;

	(void)state;
	need_root();
	if (dead == 0)
		_exit(0);
	pidfd = (int)syscall(SYS_pidfd_open, dead, 0);
	assert_true(pidfd >= 0);
	waitpid(dead, NULL, 0);
	start_other(stages); /* with memory that would be found */
	next_stage();
	assert_int_equal(attach_restore(&a,
					&(struct vault_record){
						.id = 3,
						.kind = VAULT_ATTACHED,
						.attached = { .root = getpid(), .pid = getpid() },
					},
					pidfd),
			 0);
	attach_tick(&a, 1);
	worker_wait();
	assert_int_equal(a.nr, 0);
	assert_int_equal(nr_pending, 0); /* nothing is registered */
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
	static struct memory_fs fs;
	struct stat st;

	(void)state;
	memory_fs_read(&fs, getpid());
	assert_true(memory_fs_has(&fs, device_of("/dev/shm")));
	assert_false(memory_fs_has(&fs, device_of("/proc"))); /* no disk either */
	assert_false(memory_fs_has(&fs, device_of("/")));
	if (huge >= 0) {
		assert_int_equal(fstat(huge, &st), 0);
		assert_true(memory_fs_has(&fs, st.st_dev));
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
		cmocka_unit_test_setup_teardown(untouched_memory_costs_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(rounds_overtake, setup, teardown),
		cmocka_unit_test_setup_teardown(the_dead_have_no_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(an_attachment_follows_a_family, setup, teardown),
		cmocka_unit_test_setup_teardown(a_number_that_is_given_away_is_nobodys, setup,
						teardown),
		cmocka_unit_test_setup_teardown(nobody_is_attached_that_is_not_there, setup,
						teardown),
	};

	alarm(240); /* no test may hang */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
