/* SPDX-License-Identifier: MIT */
/* Servers of the older protocol, which die with their disk when a client hangs up early. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/wire.h"
#include "preload/config.h"
#include "preload/legacy.h"
#include "preload/session.h"
#include "preload/shim.h"
#include "preload/stats.h"
#include "preload/sys.h"
#include "tests/unit/cmocka_all.h"

#define DEVICE 6
#define LATE_MS 1000 /* much longer than it is waited for, however busy the machine is */

enum manner { AT_ONCE, LATE, NEVER, IN_PIECES, HANGS_UP };

struct seen {
	_Atomic unsigned int connections, memfds, answers;
};

static char dir[32];
static struct seen *seen; /* shared with the server */
static pid_t server;

static void answer(int conn, enum manner manner, int32_t index)
{
	const char *bytes = (const char *)&index;

	if (manner == LATE)
		usleep(LATE_MS * 1000);
	if (manner == IN_PIECES) {
		for (int i = 0; i < 4; i++) {
			assert_int_equal(write(conn, bytes + i, 1), 1);
			usleep(10000);
		}
		seen->answers++;
	} else if (manner != HANGS_UP) {
		/* as such servers do: with the signal, and without asking */
		if (write(conn, bytes, sizeof(index)) == sizeof(index))
			seen->answers++;
	}
}

/* One message of one connection at a time, as ublksrv does. */
static void serve(int listener, enum manner manner)
{
	signal(SIGPIPE, SIG_DFL);
	for (;;) {
		int conn = accept(listener, NULL, NULL);
		int fds[WIRE_FDS_MAX];
		unsigned int nr;
		char byte;

		if (conn < 0)
			_exit(1);
		seen->connections++;
		if (wire_recv(conn, &byte, 1, fds, &nr) == 1 && nr == 1) {
			seen->memfds++;
			close(fds[0]);
		}
		if (manner == NEVER)
			pause();
		answer(conn, manner, 3);
		close(conn);
	}
}

static void server_start(enum manner manner)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), WIRE_SOCKET_FORMAT, dir, DEVICE);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 4), 0);
	server = fork();
	assert_true(server >= 0);
	if (!server)
		serve(listener, manner);
	close(listener);
}

static bool server_lives(void)
{
	return waitpid(server, &(int){ 0 }, WNOHANG) == 0;
}

static void await_answers(unsigned int nr)
{
	for (int i = 0; i < 10000 && seen->answers < nr && server_lives(); i++)
		usleep(1000);
	assert_int_equal(seen->answers, nr);
	usleep(20000); /* that it dies, if it does */
	assert_true(server_lives());
}

static void await_memfds(unsigned int nr)
{
	for (int i = 0; i < 10000 && seen->memfds < nr; i++)
		usleep(1000);
	assert_int_equal(seen->memfds, nr);
}

static int setup(void **state)
{
	char *none = NULL;

	(void)state;
	strcpy(dir, "/tmp/test-legacy-XXXXXX");
	assert_non_null(mkdtemp(dir));
	config_read(&none, &config);
	strcpy(config.legacy_dir, dir);
	strcpy(config.socket_dir, "/nonexistent");
	config.connect_ms = 60000;
	shim.on = true;
	session_forget();
	stats_reset();
	seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return 0;
}

static int teardown(void **state)
{
	char command[80];

	(void)state;
	session_forget();
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	munmap(seen, 4096);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static int some_memfd(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, 4096), 0);
	return fd;
}

static int offer(int ms, int32_t *ret_index)
{
	int fd = some_memfd();
	int ret = legacy_offer(DEVICE, fd, sys_now_ms() + ms, ret_index);

	close(fd);
	return ret;
}

static void a_socket_is_seen_without_a_connection(void **state)
{
	(void)state;
	server_start(AT_ONCE);
	assert_true(legacy_there(DEVICE));
	assert_false(legacy_there(DEVICE + 1));
	usleep(50000);
	assert_int_equal(seen->connections, 0);
}

static void arming_makes_no_connection_without_a_buffer(void **state)
{
	(void)state;
	server_start(AT_ONCE);
	session_arm(DEVICE, 0);
	assert_true(session_armed());
	assert_true(seen->memfds >= 1);
	assert_int_equal(seen->connections, seen->memfds);
	await_answers(seen->memfds);
}

static void an_answer_in_pieces_is_an_answer(void **state)
{
	int32_t index = -1;

	(void)state;
	server_start(IN_PIECES);
	assert_int_equal(offer(60000, &index), 0);
	assert_int_equal(index, 3);
	await_answers(1);
}

static void a_late_answer_does_not_kill_the_server(void **state)
{
	int32_t index;

	(void)state;
	server_start(LATE);
	assert_int_equal(offer(20, &index), -ETIMEDOUT);
	await_answers(1);
	/* and it serves the next */
	assert_int_equal(offer(60000, &index), 0);
	await_answers(2);
}

static void nor_does_a_client_that_ends(void **state)
{
	pid_t pid;

	(void)state;
	server_start(LATE);
	pid = fork();
	if (!pid) {
		int32_t index;

		_exit(offer(20, &index) == -ETIMEDOUT ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	await_answers(1);
}

static void *offer_for_long(void *arg)
{
	int32_t index;

	offer(60000, &index);
	return arg;
}

/* exit() runs destructors while another thread waits for its answer. */
static void nor_one_that_exits_meanwhile(void **state)
{
	pid_t pid;

	(void)state;
	server_start(LATE);
	pid = fork();
	if (!pid) {
		pthread_t thread;

		pthread_create(&thread, NULL, offer_for_long, NULL);
		for (int i = 0; i < 10000 && !seen->memfds; i++)
			usleep(1000);
		legacy_leave();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	await_answers(1);
}

static void a_server_that_never_answers_is_waited_for_once(void **state)
{
	long long began;

	(void)state;
	server_start(NEVER);
	config.connect_ms = 100;
	session_arm(DEVICE, 0);
	assert_int_equal(stat_get(STAT_DEADLINE), 1);
	await_memfds(1);
	/* nor for what comes later */
	assert_non_null(arena_new(ARENA_GRANULE));
	config.connect_ms = 60000;
	began = sys_now_ms();
	session_arm(DEVICE, 0);
	assert_true(sys_now_ms() - began < 30000);
	assert_true(server_lives());
}

static void one_that_hangs_up_is_no_server(void **state)
{
	int32_t index;

	(void)state;
	server_start(HANGS_UP);
	assert_int_equal(offer(60000, &index), -EPIPE);
	assert_true(server_lives());
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_socket_is_seen_without_a_connection),
		T(arming_makes_no_connection_without_a_buffer),
		T(an_answer_in_pieces_is_an_answer),
		T(a_late_answer_does_not_kill_the_server),
		T(nor_does_a_client_that_ends),
		T(nor_one_that_exits_meanwhile),
		T(a_server_that_never_answers_is_waited_for_once),
		T(one_that_hangs_up_is_no_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
