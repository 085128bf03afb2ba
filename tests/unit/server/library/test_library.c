/* SPDX-License-Identifier: MIT */
/* libublkzc-server from outside: its header, its descriptor, and a driver that we play. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ublkzc/server.h>

#include "common/wire.h"
#include "tests/unit/cmocka_all.h"

#define PAGE 4096UL
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static char dir[32];
static struct ublkzc_server *server;
static struct ublkzc_server_options options;

/* The driver: indices that are in use, and what it was asked and has not answered. */
static struct {
	bool used[16];
	bool answers;
	void *cookie;
	int nr_reg, nr_unreg, last_unreg;
	struct ublkzc_server_buffer last;
} driver;

static void answer(void *cookie, int result)
{
	ublkzc_server_answered(server, cookie, result);
}

/* It asks one registration at a time. */
static int reg(void *arg, const struct ublkzc_server_buffer *buffer, void *cookie)
{
	assert_ptr_equal(arg, &driver);
	assert_int_equal(buffer->reserved, 0);
	driver.nr_reg++;
	driver.last = *buffer;
	driver.cookie = cookie;
	return 0;
}

static void answer_reg(void)
{
	int index = 0;

	assert_non_null(driver.cookie);
	while (driver.used[index])
		index++;
	driver.used[index] = true;
	answer(driver.cookie, index);
	driver.cookie = NULL;
}

static int unreg_cookies;
static void *unregs[32];
static uint32_t unreg_indices[32];

static int unreg(void *arg, uint32_t index, void *cookie)
{
	assert_ptr_equal(arg, &driver);
	assert_true(unreg_cookies < 32);
	unregs[unreg_cookies] = cookie;
	unreg_indices[unreg_cookies++] = index;
	driver.nr_unreg++;
	return 0;
}

static void answer_unregs(void)
{
	int nr = unreg_cookies;

	unreg_cookies = 0;
	for (int i = 0; i < nr; i++) {
		uint32_t index = unreg_indices[i];
		bool used = index < 16 && driver.used[index];

		if (used)
			driver.used[index] = false;
		answer(unregs[i], used ? 0 : -ENOENT);
	}
}

static bool may;

static int may_use(void *arg, int fd)
{
	assert_ptr_equal(arg, &driver);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	return may ? 0 : -EACCES;
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/test-library-XXXXXX");
	assert_non_null(mkdtemp(dir));
	memset(&driver, 0, sizeof(driver));
	unreg_cookies = 0;
	may = true;
	options = (struct ublkzc_server_options){
		.size = sizeof(options),
		.device = 3,
		.socket_dir = dir,
		.arg = &driver,
		.reg = reg,
		.unreg = unreg,
		.may_use = may_use,
	};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(dir); /* the socket is gone */
}

static void open_server(uint32_t flags)
{
	options.flags = flags;
	assert_int_equal(ublkzc_server_open(&options, &server), 0);
}

/* The device is gone, and with it what it was asked. */
static void close_server(void)
{
	ublkzc_server_stop(server);
	if (driver.cookie)
		answer(driver.cookie, -ENODEV);
	answer_unregs();
	ublkzc_server_close(server);
	driver.cookie = NULL;
}

/* As a loop would: only when its one descriptor says so. */
static bool run(int ms)
{
	struct pollfd p = { .fd = ublkzc_server_fd(server), .events = POLLIN };

	if (poll(&p, 1, ms) <= 0)
		return false;
	assert_int_equal(ublkzc_server_dispatch(server), 0);
	return true;
}

static int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/ublkb3.sock", dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void tell(int fd, enum wire_type type, int pass, uint64_t length, uint32_t index)
{
	struct wire_request req;

	wire_request_init(&req, type, 7);
	req.length = length;
	req.index = index;
	assert_int_equal(wire_send(fd, &req, sizeof(req), pass), 0);
}

/* False: nothing comes. */
static bool hear(int fd, struct wire_reply *reply, int rounds)
{
	int fds[WIRE_FDS_MAX];
	unsigned int nr;

	while (wire_recv(fd, reply, sizeof(*reply), fds, &nr) != sizeof(*reply))
		if (!rounds-- || !run(3000))
			return false;
	return true;
}

static struct wire_reply ask(int fd, enum wire_type type, int pass, uint64_t length, uint32_t index)
{
	struct wire_reply reply;

	tell(fd, type, pass, length, index);
	assert_true(hear(fd, &reply, 100));
	assert_int_equal(reply.type, type);
	return reply;
}

static int greeted(void)
{
	int fd = dial();

	assert_int_equal(ask(fd, WIRE_HELLO, 0, 0, 0).status, 0);
	return fd;
}

static int memory(size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	for (size_t at = 0; at < len; at += PAGE)
		assert_int_equal(pwrite(fd, "x", 1, (off_t)at), 1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS), 0);
	return fd;
}

static void until(bool (*is_so)(void))
{
	for (int i = 0; i < 1000 && !is_so(); i++)
		run(1000);
	assert_true(is_so());
}

static bool reg_asked(void)
{
	return driver.cookie;
}

static bool unreg_asked(void)
{
	return unreg_cookies;
}

static bool nobody_there(void)
{
	struct ublkzc_server_stats stats;

	ublkzc_server_stats(server, &stats, sizeof(stats));
	return !stats.clients;
}

static struct ublkzc_server_stats stats_now(void)
{
	struct ublkzc_server_stats stats;

	ublkzc_server_stats(server, &stats, sizeof(stats));
	return stats;
}

static void *find(unsigned int index, uint32_t offset, uint32_t len, bool into)
{
	return ublkzc_server_find(server, (uint64_t)index << 32 | offset, len,
				  into ? UBLKZC_SERVER_INTO : UBLKZC_SERVER_FROM);
}

/* ---- */

static void a_client_comes_is_served_and_dies(void **state)
{
	int mem = memory(4 * PAGE);
	struct wire_reply reply;
	char *data;
	int fd;

	(void)state;
	open_server(0);
	fd = greeted();
	tell(fd, WIRE_ADD, mem, 4 * PAGE, 0);
	until(reg_asked);
	assert_int_equal(driver.last.len, 4 * PAGE);
	/* The driver may match it already, and nobody knows what. */
	assert_null(find(0, 0, PAGE, true));
	answer_reg();
	assert_true(hear(fd, &reply, 10));
	assert_int_equal(reply.status, 0);
	data = find(0, PAGE, PAGE, true);
	assert_non_null(data);
	assert_int_equal(data[0], 'x');
	data[1] = 'y';
	assert_int_equal(pread(mem, &data[2], 1, PAGE + 1), 1);
	assert_int_equal(data[2], 'y');
	/* Whatever the driver says, what is found lies in it. */
	assert_null(find(0, 4 * PAGE, 1, true));
	assert_null(find(0, 3 * PAGE, PAGE + 1, true));
	assert_null(find(1, 0, 1, true));
	assert_null(find(65535, 0, 1, false));
	assert_int_equal(stats_now().buffers, 1);
	assert_int_equal(stats_now().bytes, 4 * PAGE);
	/* It is killed: nothing of it is left. */
	close(fd);
	until(nobody_there);
	until(unreg_asked);
	assert_non_null(find(0, 0, PAGE, false)); /* a request may be using it */
	answer_unregs();
	assert_null(find(0, 0, PAGE, false));
	assert_int_equal(stats_now().buffers, 1); /* as of the last dispatch() */
	assert_int_equal(ublkzc_server_dispatch(server), 0);
	assert_int_equal(stats_now().buffers, 0);
	close(mem);
	close_server();
}

static void who_may_not_use_the_device_is_refused(void **state)
{
	struct wire_reply reply;
	int fd;

	(void)state;
	open_server(0);
	may = false;
	fd = dial();
	reply = ask(fd, WIRE_HELLO, 0, 0, 0);
	assert_int_equal(reply.status, -EACCES);
	assert_int_equal(reply.reason, WIRE_NO_ACCESS);
	until(nobody_there);
	assert_int_equal(stats_now().refused, 1);
	close(fd);
	close_server();
}

/* A server whose own code touches the bytes gets none that could end it. */
static void what_might_fault_is_declined_unless_only_system_calls_touch_it(void **state)
{
	int fd;

	(void)state;
	open_server(0);
	fd = greeted();
	assert_int_equal(ask(fd, WIRE_SCAN, -1, 0, 0).status, -EOPNOTSUPP);
	assert_int_equal(ask(fd, WIRE_PING, -1, 0, 0).status, 0);
	close(fd);
	close_server();
	open_server(UBLKZC_SERVER_ONLY_SYSTEM_CALLS);
	fd = greeted();
	assert_int_equal(ask(fd, WIRE_SCAN, -1, 0, 0).status, 0);
	close(fd);
	close_server();
}

/* Pages that are punched out of sealed memory: a load makes new ones, and is no signal. */
static void a_touching_server_survives_holes(void **state)
{
	int mem = memory(4 * PAGE);
	struct wire_reply reply;
	int fd;

	(void)state;
	open_server(0);
	fd = greeted();
	tell(fd, WIRE_ADD, mem, 4 * PAGE, 0);
	until(reg_asked);
	answer_reg();
	assert_true(hear(fd, &reply, 10));
	assert_int_equal(fallocate(mem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * PAGE),
			 0);
	memset(find(0, 0, 4 * PAGE, true), 1, 4 * PAGE);
	close(fd);
	close(mem);
	until(nobody_there);
	close_server();
}

/* With this one's own system calls EFAULT is said instead, and no page is made. */
static void a_page_that_was_taken_away_is_not_made_again(void **state)
{
	int mem = memory(PAGE);
	struct wire_reply reply;
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	int fd;

	(void)state;
	open_server(UBLKZC_SERVER_ONLY_SYSTEM_CALLS);
	fd = greeted();
	tell(fd, WIRE_ADD, mem, PAGE, 0);
	until(reg_asked);
	answer_reg();
	assert_true(hear(fd, &reply, 10));
	assert_int_equal(read(zero, find(0, 0, 64, true), 64), 64);
	assert_int_equal(fallocate(mem, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
	/* Without userfaultfd (the log says so) the page is made. */
	if (read(zero, find(0, 0, 64, true), 64) < 0)
		assert_int_equal(errno, EFAULT);
	close(fd);
	close(mem);
	close(zero);
	until(nobody_there);
	close_server();
}

/* What exists later is registered later: because of copied(), through the one descriptor. */
static void what_comes_later_is_found_when_requests_are_copied(void **state)
{
	int mem = memfd_create("sparse", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int fd;

	(void)state;
	assert_int_equal(ftruncate(mem, 1 << 20), 0);
	assert_int_equal(fcntl(mem, F_ADD_SEALS, SEALS), 0);
	open_server(0);
	fd = greeted();
	assert_int_equal(ask(fd, WIRE_ADD, mem, 1 << 20, 0).status, 0);
	assert_int_equal(driver.nr_reg, 0);
	assert_int_equal(pwrite(mem, "x", 1, 8 * PAGE), 1);
	for (int i = 0; i < 1000 && !driver.cookie; i++) {
		ublkzc_server_copied(server);
		run(1000);
	}
	assert_non_null(driver.cookie);
	assert_int_equal(driver.last.len, PAGE);
	answer_reg();
	assert_true(stats_now().copied >= 1);
	close(fd);
	close(mem);
	until(nobody_there);
	close_server();
}

/* A successor: what the driver still has goes first, and nothing of the new is mistaken for it. */
static void what_a_dead_server_left_is_unregistered_first(void **state)
{
	int mem = memory(PAGE);
	struct wire_reply reply;
	int fd;

	(void)state;
	driver.used[0] = driver.used[5] = true;
	open_server(UBLKZC_SERVER_TAKES_OVER);
	fd = greeted();
	tell(fd, WIRE_ADD, mem, PAGE, 0);
	for (int i = 0; i < 5; i++)
		run(20);
	/* Between START_ and END_USER_RECOVERY a driver may never answer. */
	assert_int_equal(driver.nr_reg + driver.nr_unreg, 0);
	ublkzc_server_live(server);
	for (int i = 0; i < 2000 && unreg_cookies; i++) {
		assert_int_equal(unreg_cookies, 1);
		assert_int_equal(driver.nr_reg, 0);
		run(10);
		answer_unregs();
		run(0);
		assert_int_equal(ublkzc_server_dispatch(server), 0);
	}
	assert_false(driver.used[0] || driver.used[5]);
	assert_true(driver.nr_unreg >= 256 && driver.nr_unreg < 1000);
	until(reg_asked);
	answer_reg();
	assert_true(hear(fd, &reply, 10));
	assert_non_null(find(0, 0, PAGE, true));
	close(fd);
	close(mem);
	until(nobody_there);
	close_server();
}

/* The socket outlives a server that is killed, and is taken over by the next. */
static void a_restart_finds_the_old_socket_and_gets_new_clients(void **state)
{
	int status, fd;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		open_server(0);
		_exit(0); /* as good as killed */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	open_server(0);
	fd = greeted();
	close(fd);
	until(nobody_there);
	close_server();
}

/* What other threads may call, while memory comes and goes. */
static void *look_it_up(void *arg)
{
	atomic_bool *stop = arg;

	while (!*stop) {
		find(0, 0, PAGE, true);
		ublkzc_server_copied(server);
		stats_now();
	}
	return NULL;
}

static void any_thread_may_look_up(void **state)
{
	int mem = memory(PAGE);
	atomic_bool stop = false;
	pthread_t thread;

	(void)state;
	open_server(0);
	assert_int_equal(pthread_create(&thread, NULL, look_it_up, &stop), 0);
	for (int i = 0; i < 20; i++) {
		struct wire_reply reply;
		int fd = greeted();

		tell(fd, WIRE_ADD, mem, PAGE, 0);
		for (int rounds = 0; rounds < 10000 && !hear(fd, &reply, 1); rounds++)
			if (driver.cookie)
				answer_reg();
		assert_int_equal(reply.status, 0);
		close(fd);
		until(nobody_there);
		answer_unregs();
	}
	stop = true;
	pthread_join(thread, NULL);
	close(mem);
	close_server();
}

static unsigned int entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned int nr = 0;

	while (readdir(d))
		nr++;
	closedir(d);
	return nr;
}

static void it_has_no_threads_and_leaves_nothing_open(void **state)
{
	unsigned int fds = 0;

	(void)state;
	for (int i = 0; i < 3; i++) {
		int mem = memory(PAGE);
		int fd;

		open_server(UBLKZC_SERVER_ONLY_SYSTEM_CALLS);
		fd = greeted();
		tell(fd, WIRE_ADD, mem, PAGE, 0);
		until(reg_asked);
		answer_reg();
		/* Of a kind whose close may take long. */
		tell(fd, WIRE_ADD, fd, PAGE, 0);
		while (run(50))
			;
#if !defined(__SANITIZE_THREAD__)
		assert_int_equal(entries("/proc/self/task"), 3); /* with . and .. */
#endif
		close(fd);
		close(mem);
		until(nobody_there);
		close_server();
		if (i == 1)
			fds = entries("/proc/self/fd"); /* those that are kept for ever are open */
	}
	assert_int_equal(entries("/proc/self/fd"), fds);
}

static void options_that_are_no_good_are_refused(void **state)
{
	struct {
		struct ublkzc_server_options known;
		char more[8];
	} newer = { .more = "" };

	(void)state;
	options.size = 4;
	assert_int_equal(ublkzc_server_open(&options, &server), -EINVAL);
	assert_null(server);
	options.size = sizeof(options);
	options.flags = 1U << 31;
	assert_int_equal(ublkzc_server_open(&options, &server), -EINVAL);
	options.flags = 0;
	options.unreg = NULL;
	assert_int_equal(ublkzc_server_open(&options, &server), -EINVAL);
	options.unreg = unreg;
	/* Of a later header: what it says must be zero. */
	newer.known = options;
	newer.known.size = sizeof(newer);
	newer.more[3] = 1;
	assert_int_equal(ublkzc_server_open(&newer.known, &server), -EINVAL);
	newer.more[3] = 0;
	assert_int_equal(ublkzc_server_open(&newer.known, &server), 0);
	close_server();
	/* A folder that cannot be made. */
	options.socket_dir = "/proc/nowhere";
	assert_true(ublkzc_server_open(&options, &server) < 0);
	assert_null(server);
	ublkzc_server_close(NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_client_comes_is_served_and_dies),
		T(who_may_not_use_the_device_is_refused),
		T(what_might_fault_is_declined_unless_only_system_calls_touch_it),
		T(a_touching_server_survives_holes),
		T(a_page_that_was_taken_away_is_not_made_again),
		T(what_comes_later_is_found_when_requests_are_copied),
		T(what_a_dead_server_left_is_unregistered_first),
		T(a_restart_finds_the_old_socket_and_gets_new_clients),
		T(any_thread_may_look_up),
		T(it_has_no_threads_and_leaves_nothing_open),
		T(options_that_are_no_good_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
