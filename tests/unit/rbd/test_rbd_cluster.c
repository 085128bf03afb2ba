/* SPDX-License-Identifier: MIT */
/*
 * test_rbd_cluster.c - the engine rbd against a real cluster of one node, which UBLKZC_CEPH names
 * (tests/vm/ceph-one-node DIR).  It stops the OSD now and then.  Not in ctest: a cluster is too
 * much for that; tests/vm/apps/66-rbd.sh runs it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/cmocka_all.h"
#include "tests/unit/engines/data.h"
#include "tests/unit/engines/host.h"

#define LEN 65536U
#define MIB (1U << 20)
#define IMAGE_SIZE ((uint64_t)64 * MIB)

static uint8_t wrote[HOST_MAX_IO], got[HOST_MAX_IO];
static char conf[256];
static const char *directory;

/* ---- the cluster ---- */

static void __attribute__((format(printf, 1, 2))) shell(const char *format, ...)
{
	char command[1024], whole[1400];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	/* A monitor that does not know yet who asks refuses: see tests/vm/ceph-one-node. */
	snprintf(whole, sizeof(whole),
		 "CEPH_CONF=%s/ceph.conf; export CEPH_CONF; ceph() { for i in 1 2 3 4 5 6 7; do command "
		 "ceph \"$@\" && return; sleep 1; done; return 1; }; %s",
		 directory, command);
	if (system(whole) != 0)
		fail_msg("failed: %s", command);
}

static pid_t osd(void)
{
	char path[256];
	FILE *f;
	int pid = 0;

	snprintf(path, sizeof(path), "%s/run/osd.0.pid", directory);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &pid), 1);
	fclose(f);
	return pid;
}

/* kill() returns before all threads have heard of it: on a busy machine some answer meanwhile. */
static void stop(pid_t pid)
{
	assert_int_equal(kill(pid, SIGSTOP), 0);
	shell("for i in $(seq 600); do grep -L '^State:.[Tt]' /proc/%d/task/*/status | grep -q . || exit "
	      "0; sleep 0.1; done; exit 1",
	      pid);
}

static int set_up(void **state)
{
	(void)state;
	host_said[0] = 0;
	host_read_only = false;
	shell("rbd create --size 64M ublkzc");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	kill(osd(), SIGCONT);
	shell("rbd snap purge --no-progress ublkzc; rbd rm --no-progress ublkzc");
	return 0;
}

static void assert_open(int expected, const char *image, const char *words)
{
	assert_int_equal(host_open(image, conf, NULL), expected);
	if (!strstr(host_said, words))
		fail_msg("it says: %s", host_said);
}

/* ---- well ---- */

static void what_is_written_is_read(const char *cache)
{
	assert_int_equal(host_open("rbd/ublkzc", conf, cache, NULL), 0);
	assert_int_equal(target.size, IMAGE_SIZE);
	write_and_read(200, IMAGE_SIZE, NULL);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_close();
}

static void without_a_cache(void **state)
{
	(void)state;
	what_is_written_is_read("cache=none");
}

static void with_each_cache(void **state)
{
	(void)state;
	what_is_written_is_read("cache=writethrough");
	what_is_written_is_read("cache=writeback");
}

static void many_at_once_and_fua(void **state)
{
	static uint8_t data[HOST_DEPTH][8192];
	struct task tasks[HOST_DEPTH];

	(void)state;
	assert_int_equal(host_open("rbd/ublkzc", conf, NULL), 0);
	for (unsigned int i = 0; i < HOST_DEPTH; i++) {
		fill(data[i], sizeof(data[i]), i);
		begin(&tasks[i], UBLKZC_WRITE, i * sizeof(data[i]), data[i], sizeof(data[i]), 1);
		tasks[i].rq.fua = i % 2;
	}
	for (unsigned int i = 0; i < HOST_DEPTH; i++) {
		assert_true(await(&tasks[i], 60));
		assert_int_equal(tasks[i].res, 0);
		assert_int_equal(do_io(UBLKZC_READ, i * 8192, got, 8192), 0);
		assert_memory_equal(got, data[i], 8192);
	}
	host_close();
}

static void what_is_zeroed_or_discarded_is_zero(void **state)
{
	static const uint8_t zeroes[4 * LEN];

	(void)state;
	assert_int_equal(host_open("rbd/ublkzc", conf, NULL), 0);
	fill(wrote, HOST_MAX_IO, 1);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, 4 * LEN), 0);
	assert_int_equal(do_io(UBLKZC_WRITE_ZEROES, LEN, NULL, LEN), 0);
	assert_int_equal(do_io(UBLKZC_READ, 0, got, 4 * LEN), 0);
	assert_memory_equal(got, wrote, LEN);
	assert_memory_equal(got + LEN, zeroes, LEN);
	assert_memory_equal(got + 2 * LEN, wrote + 2 * LEN, 2 * LEN);
	/* A whole object: of less than that librbd need not do anything. */
	assert_int_equal(do_io(UBLKZC_DISCARD, 0, NULL, 4 * MIB), 0);
	assert_int_equal(do_io(UBLKZC_READ, 0, got, 4 * LEN), 0);
	assert_memory_equal(got, zeroes, 4 * LEN);
	host_close();
}

static void a_snapshot_stays_as_it_was(void **state)
{
	(void)state;
	assert_int_equal(host_open("rbd/ublkzc", conf, NULL), 0);
	fill(wrote, LEN, 1);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), 0);
	shell("rbd snap create --no-progress ublkzc@before");
	memset(got, 0, LEN);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, got, LEN), 0);
	host_close();
	assert_int_equal(host_open("rbd/ublkzc@before", conf, NULL), 0);
	assert_true(target.read_only);
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), 0);
	assert_memory_equal(got, wrote, LEN);
	host_close();
}

static void a_namespace_is_another_place(void **state)
{
	(void)state;
	shell("rbd namespace create rbd/ours && rbd create --size 8M rbd/ours/ublkzc");
	assert_int_equal(host_open("rbd/ours/ublkzc", conf, NULL), 0);
	assert_int_equal(target.size, 8 * MIB);
	host_close();
	shell("rbd rm --no-progress rbd/ours/ublkzc && rbd namespace rm rbd/ours");
}

static void a_resize_is_heard_of(void **state)
{
	uint64_t size = 0;

	(void)state;
	assert_int_equal(host_open("rbd/ublkzc", conf, NULL), 0);
	shell("rbd resize --no-progress --size 96M ublkzc");
	for (unsigned int i = 0; i < 100 && !strstr(host_said, "has 100663296 bytes now"); i++)
		run(100);
	assert_non_null(strstr(host_said, "has 100663296 bytes now"));
	assert_int_equal(engine->grow(&target, &size), 0);
	assert_int_equal(size, 96 * MIB);
	fill(wrote, LEN, 1);
	assert_int_equal(do_io(UBLKZC_WRITE, 80 * MIB, wrote, LEN), 0);
	size = 128 * MIB;
	assert_int_equal(engine->grow(&target, &size), -EINVAL);
	host_close();
}

/* ---- what cannot be ---- */

static void what_cannot_be_is_told(void **state)
{
	char other[300];

	(void)state;
	assert_open(-ENOENT, "nopool/img", "there is no pool 'nopool': see \"ceph osd pool ls\"");
	assert_open(-ENOENT, "rbd/noimage",
		    "there is no image 'noimage' in rbd: see \"rbd ls rbd\"");
	assert_open(-ENOENT, "rbd/nons/ublkzc", "pool 'rbd' has no namespace 'nons'");
	assert_open(-ENOENT, "rbd/ublkzc@nosnap", "the image has no snapshot 'nosnap'");
	shell("rbd feature disable ublkzc object-map,fast-diff 2>/dev/null; "
	      "rbd feature disable ublkzc exclusive-lock");
	assert_open(-EINVAL, "rbd/ublkzc", "\"rbd feature enable rbd/ublkzc exclusive-lock\"");
	shell("rbd feature enable ublkzc exclusive-lock");
	shell("rbd config image set rbd/ublkzc rbd_cache true");
	assert_open(-EINVAL, "rbd/ublkzc", "rbd config image rm");
	shell("rbd config image rm rbd/ublkzc rbd_cache");
	snprintf(other, sizeof(other), "conf=%s/nobody.conf", directory);
	shell("sed 's/16789/1/' %s/ceph.conf >%s/nobody.conf", directory, directory);
	assert_int_equal(host_open("rbd/ublkzc", other, "connect-timeout=2", NULL), -ETIMEDOUT);
	assert_non_null(
		strstr(host_said, "no monitor of the cluster answers in 2 seconds (mon host"));
	/* The OSD does not answer. */
	stop(osd());
	assert_int_equal(host_open("rbd/ublkzc", conf, "connect-timeout=3", NULL), -ETIMEDOUT);
	assert_non_null(strstr(host_said, "OSDs do not answer in 3 seconds"));
	kill(osd(), SIGCONT);
}

/* ---- others ---- */

struct child {
	pid_t pid;
	int memory; /* its target.fd */
};

/*
 * Another server: this program once more, which opens the image, does what @act says, and then says
 * which descriptor its target.fd is.
 */
static struct child start_child(const char *lock, const char *act)
{
	struct child c;
	char path[64], text[16];
	int pipes[2], fd = -1;

	assert_int_equal(pipe(pipes), 0);
	snprintf(text, sizeof(text), "%d", pipes[1]);
	c.pid = fork();
	if (!c.pid) {
		execl("/proc/self/exe", "child", lock, act, text, NULL);
		_exit(1);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &fd, sizeof(fd)), sizeof(fd));
	close(pipes[0]);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", c.pid, fd);
	c.memory = open(path, O_RDWR | O_CLOEXEC);
	assert_true(c.memory >= 0);
	return c;
}

static void end_child(struct child *c)
{
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
}

static void write_something(void)
{
	if (do_io(UBLKZC_WRITE, 0, wrote, LEN))
		_exit(1);
}

static void an_image_in_use_is_refused(void **state)
{
	struct child c = start_child("lock=yes", "something");

	(void)state;
	assert_open(-EROFS, "rbd/ublkzc", "which is alive: end what uses it there");
	/* And nobody else writes: Ceph's own programs ask for the lock, and do not get it. */
	assert_int_not_equal(
		system("CEPH_CONF=$UBLKZC_CEPH/ceph.conf timeout 20 rbd bench --io-type "
		       "write --io-total 4096 ublkzc >/dev/null 2>&1"),
		0);
	end_child(&c);
	/* Read-only needs no lock. */
	host_read_only = true;
	assert_int_equal(host_open("rbd/ublkzc", conf, NULL), 0);
	host_close();
}

/*
 * Old writes that come late.  The OSD sleeps while a server writes more than sockets hold, then the
 * server is stopped and the OSD wakes: some of it is still in the server's memory.  Then newer
 * writes are done by a successor, and the old server wakes.
 */
#define OLD 0xaa
#define NEW 0x55
#define LATE ((uint32_t)HOST_DEPTH * HOST_MAX_IO)

static struct task late_tasks[HOST_DEPTH];
static uint8_t late_data[LATE];

static void write_late(void)
{
	stop(osd());
	memset(late_data, OLD, LATE);
	for (unsigned int i = 0; i < HOST_DEPTH; i++)
		begin(&late_tasks[i], UBLKZC_WRITE, (uint64_t)i * HOST_MAX_IO,
		      late_data + (size_t)i * HOST_MAX_IO, HOST_MAX_IO, 1);
	usleep(500000);
}

static unsigned int count(uint8_t what)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < LATE / LEN; i++) {
		assert_int_equal(do_io(UBLKZC_READ, (uint64_t)i * LEN, got, LEN), 0);
		for (unsigned int at = 0; at < LEN; at += 512)
			nr += got[at] == what;
	}
	return nr;
}

/* How many sectors of the old server's writes there are in the end. */
static unsigned int late_writes(struct child *c, int memory, const char *lock)
{
	unsigned int nr;

	stop(c->pid);
	kill(osd(), SIGCONT);
	if (memory >= 0)
		host_succeed(memory);
	assert_int_equal(host_open("rbd/ublkzc", conf, lock, NULL), 0);
	memset(wrote, NEW, HOST_MAX_IO);
	for (unsigned int i = 0; i < HOST_DEPTH; i++)
		assert_int_equal(do_io(UBLKZC_WRITE, (uint64_t)i * HOST_MAX_IO, wrote, HOST_MAX_IO),
				 0);
	assert_int_equal(count(NEW), LATE / 512);
	kill(c->pid, SIGCONT);
	sleep(3); /* for what comes late to come */
	nr = count(OLD);
	host_close();
	end_child(c);
	return nr;
}

static void what_is_late_is_not_done(void **state)
{
	struct child c = start_child("lock=yes", "late");

	(void)state;
	assert_int_equal(late_writes(&c, c.memory, "lock=yes"), 0);
}

static void nor_without_the_lock(void **state)
{
	struct child c = start_child("lock=no", "late");

	(void)state;
	assert_int_equal(late_writes(&c, c.memory, "lock=no"), 0);
}

/* The lock does it alone, when nothing is known of the dead server. */
static void nor_when_the_server_is_not_known(void **state)
{
	struct child c = start_child("lock=yes", "late");

	(void)state;
	assert_int_equal(late_writes(&c, -1, "lock=yes"), 0);
	close(c.memory);
}

/* That the others can fail: without any fence it is done. */
static void without_a_fence_it_is(void **state)
{
	struct child c = start_child("lock=no", "late");

	(void)state;
	assert_true(late_writes(&c, -1, "lock=no") > 0);
	close(c.memory);
}

/* A server that is cut off says so, and its requests end. */
static void who_is_cut_off_says_so(void **state)
{
	(void)state;
	assert_int_equal(host_open("rbd/ublkzc", conf, NULL), 0);
	shell("ceph osd blocklist add $(rbd lock ls --format json ublkzc | "
	      "sed 's/.*\"address\":\"\\([^\"]*\\)\".*/\\1/')");
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), -EIO);
	assert_non_null(strstr(host_said, "cut this client off"));
	host_close();
}

/* ---- away for a while ---- */

static void requests_wait_for_the_cluster(void **state)
{
	struct task tasks[8];
	static uint8_t data[8][8192];

	(void)state;
	assert_int_equal(host_open("rbd/ublkzc", conf, "connect-timeout=5", NULL), 0);
	stop(osd());
	for (unsigned int i = 0; i < 8; i++) {
		fill(data[i], 8192, i);
		begin(&tasks[i], UBLKZC_WRITE, i * 8192, data[i], 8192, 1);
	}
	run(8000); /* longer than what is waited at the beginning */
	for (unsigned int i = 0; i < 8; i++)
		assert_false(tasks[i].done);
	kill(osd(), SIGCONT);
	for (unsigned int i = 0; i < 8; i++) {
		assert_true(await(&tasks[i], 120));
		assert_int_equal(tasks[i].res, 0);
		assert_int_equal(do_io(UBLKZC_READ, i * 8192, got, 8192), 0);
		assert_memory_equal(got, data[i], 8192);
	}
	host_close();
}

/* Those that touch a client's memory must hear of it when it is gone (SIGBUS). */
static void memory_that_is_gone_is_noticed(void **state)
{
	(void)state;
	assert_int_equal(host_open("rbd/ublkzc", conf, NULL), 0);
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), 0);
	/* The 7th bit of the mask, of the threads that copy and send. */
	shell("! grep -h SigBlk $(grep -lE 'io_context_pool|msgr-worker' /proc/%d/task/*/comm | "
	      "sed s/comm/status/) | grep -E '[4-7c-f].$'",
	      getpid());
	host_close();
}

static int be_child(char **argv)
{
	if (host_open("rbd/ublkzc", conf, argv[1], NULL))
		return 1;
	if (strcmp(argv[2], "late") == 0)
		write_late();
	else
		write_something();
	if (write(atoi(argv[3]), &target.fd, sizeof(target.fd)) < 0)
		return 1;
	run(600000);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
#define UNIT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
		UNIT(without_a_cache),
		UNIT(with_each_cache),
		UNIT(many_at_once_and_fua),
		UNIT(what_is_zeroed_or_discarded_is_zero),
		UNIT(a_snapshot_stays_as_it_was),
		UNIT(a_namespace_is_another_place),
		UNIT(a_resize_is_heard_of),
		UNIT(memory_that_is_gone_is_noticed),
		UNIT(what_cannot_be_is_told),
		UNIT(an_image_in_use_is_refused),
		UNIT(what_is_late_is_not_done),
		UNIT(nor_without_the_lock),
		UNIT(nor_when_the_server_is_not_known),
		UNIT(without_a_fence_it_is),
		UNIT(who_is_cut_off_says_so),
		UNIT(requests_wait_for_the_cluster),
	};

	directory = getenv("UBLKZC_CEPH");
	if (!directory) {
		fprintf(stderr, "UBLKZC_CEPH names no cluster: tests/vm/ceph-one-node DIR\n");
		return 77;
	}
	snprintf(conf, sizeof(conf), "conf=%s/ceph.conf", directory);
	if (argc == 4)
		return be_child(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
