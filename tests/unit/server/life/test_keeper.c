/* SPDX-License-Identifier: MIT */
/*
 * The keeper and what it keeps: real processes, but no device.
 *
 * Servers write what happened to a diary.  Successors are this program again, which
 * the keeper starts with "take-over VERSION FD" and the words of the test.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "keeper_fixture.h"
#include "tests/unit/cmocka_all.h"

/* ---- servers ---- */

static int text_fd(const char *text)
{
	int fd = memfd_create("text", 0);

	if (write(fd, text, strlen(text)) < 0)
		return -1;
	return fd;
}

static void die(void)
{
	raise(SIGKILL);
}

static int puts_and_dies(struct vault *v, void *arg)
{
	struct vault_record kept = { .kind = VAULT_BUFFER, .buffer = { .index = 1 } };
	struct vault_record dropped = { .kind = VAULT_CLIENT };
	struct vault_record last = { .kind = VAULT_USE, .use = { .seq = 5 } };

	(void)arg;
	vault_put(v, &kept, text_fd("first"));
	vault_put(v, &dropped, text_fd("second"));
	vault_put(v, &last, -1);
	vault_drop(v, dropped.id);
	kept.buffer.index = 2;
	vault_put(v, &kept, -1); /* and keeps its descriptor */
	vault_ready(v, 9);
	/* Delivered, although nobody has read it when we die. */
	last.use.seq = 6;
	vault_put(v, &last, -1);
	die();
	return 0;
}

static int fails(struct vault *v, void *arg)
{
	(void)v, (void)arg;
	write_diary("failed");
	return EXIT_FAILURE;
}

static int is_live_and_dies(struct vault *v, void *arg)
{
	(void)arg;
	vault_ready(v, 9);
	die();
	return 0;
}

static int waits_for_the_end(struct vault *v, void *arg)
{
	(void)arg;
	vault_ready(v, 9);
	pause();
	return 0;
}

/* As one that could not send everything: what the keeper has is not all there is. */
static int goes_on_alone_and_dies(struct vault *v, void *arg)
{
	(void)arg;
	vault_ready(v, 9);
	if (write(v->fd, "?", 1) == 1)
		die();
	return 0;
}

/* It had given up its keeper before: what that has is not all there is, either. */
static int gives_up_and_dies(struct vault *v, void *arg)
{
	(void)arg;
	vault_ready(v, 9);
	vault_lose(v, -ENOBUFS);
	die();
	return 0;
}

static int changes_a_kind_and_dies(struct vault *v, void *arg)
{
	struct vault_record r = { .kind = VAULT_FILE };
	int fd = memfd_create("r", 0);

	(void)arg;
	vault_put(v, &r, fd);
	vault_ready(v, 9);
	r.kind = VAULT_CLIENT;
	vault_put(v, &r, -1);
	die();
	return 0;
}

/* ---- successors ---- */

static void note_records(struct vault *v)
{
	struct vault_record r;
	char line[128];
	char text[16];
	int fd;

	while (vault_next(v, &r, &fd) == 1) {
		ssize_t n = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : 0;

		text[n > 0 ? n : 0] = '\0';
		snprintf(line, sizeof(line), "%u:%u:%s", r.kind,
			 r.kind == VAULT_USE ? r.use.seq : r.buffer.index, text);
		write_diary(line);
	}
}

/* Dies as often as there are letters in @lives, which it wears off. */
static int wear_off(struct vault *v, const char *lives)
{
	struct stat st;

	write_diary("successor");
	if (stat(lives, &st) == 0 && st.st_size > 0 && truncate(lives, st.st_size - 1) == 0)
		die();
	vault_ready(v, 9);
	return 0;
}

static int successor(int argc, char **argv)
{
	struct vault v = { .fd = atoi(argv[3]) };
	const char *what = argc > 5 ? argv[5] : "";

	snprintf(diary, sizeof(diary), "%s", argv[4]);
	if (atoi(argv[2]) != VAULT_VERSION)
		return EXIT_OTHER_VAULT;
	if (strcmp(what, "records") == 0) {
		note_records(&v);
		vault_ready(&v, 9);
		return 0;
	}
	if (strcmp(what, "gone") == 0) {
		write_diary("gone");
		return EXIT_GONE;
	}
	return wear_off(&v, argv[6]);
}

/* ---- tests ---- */

static pid_t start(int (*serve)(struct vault *v, void *arg), const char *what, const char *more)
{
	char *argv[] = { diary, (char *)what, (char *)more };
	struct keeper_start keeper = {
		.serve = serve,
		.argv = argv,
		.argc = 3,
		.times = KEEPER_TIMES,
	};

	return start_keeper(&keeper);
}

static int setup(void **state)
{
	int fd;

	(void)state;
	strcpy(diary, "/tmp/test_keeper.XXXXXX");
	fd = mkstemp(diary);
	close(fd);
	return fd < 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(diary);
}

static void what_was_said_before_death_is_inherited(void **state)
{
	(void)state;
	assert_int_equal(status_of(start(puts_and_dies, "records", "")), 0);
	expect_diary("ready 9;7:2:first;8:6:;");
}

static void a_server_that_never_was_live_has_no_successor(void **state)
{
	(void)state;
	assert_int_equal(status_of(start(fails, "records", "")), EXIT_FAILURE);
	expect_diary("failed;");
}

static void incomplete_records_are_not_inherited(void **state)
{
	(void)state;
	assert_int_equal(status_of(start(goes_on_alone_and_dies, "records", "")), EXIT_WAITS);
	expect_diary("ready 9;");
}

static void a_record_stays_what_it_is(void **state)
{
	(void)state;
	assert_int_equal(status_of(start(changes_a_kind_and_dies, "records", "")), EXIT_WAITS);
	expect_diary("ready 9;");
}

static void a_server_goes_on_alone_when_its_keeper_knows(void **state)
{
	(void)state;
	assert_int_equal(status_of(start(gives_up_and_dies, "records", "")), EXIT_WAITS);
	expect_diary("ready 9;");
}

static void a_device_that_is_gone_ends_it(void **state)
{
	(void)state;
	assert_int_equal(status_of(start(is_live_and_dies, "gone", "")), EXIT_FAILURE);
	expect_diary("ready 9;gone;");
}

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* And ever more slowly. */
static void successors_that_die_are_replaced(void **state)
{
	char lives[] = "/tmp/test_keeper.XXXXXX";
	long long before = now_ms();
	int fd = mkstemp(lives);

	(void)state;
	assert_int_equal(write(fd, "lll", 3), 3);
	close(fd);
	assert_int_equal(status_of(start(is_live_and_dies, "wear", lives)), 0);
	unlink(lives);
	expect_diary("ready 9;successor;successor;successor;successor;");
	assert_true(now_ms() - before >= (1 + 2 + 4 + 8) * KEEPER_PAUSE_MIN_MS - 1);
}

static void a_signal_stops_both(void **state)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	pid_t keeper = start(waits_for_the_end, "records", "");

	(void)state;
	for (int i = 0; i < 6000 && access(diary, R_OK) == 0; i++) {
		struct stat st;

		if (stat(diary, &st) == 0 && st.st_size > 0)
			break;
		nanosleep(&pause, NULL);
	}
	kill(keeper, SIGTERM);
	/* The server died of it, so it did not end well; and nobody replaced it. */
	assert_int_equal(status_of(keeper), EXIT_FAILURE);
	expect_diary("ready 9;");
}

static void other_versions_are_not_understood(void **state)
{
	struct vault_message m = { .version = VAULT_VERSION + 1 };
	struct vault_message got;
	int socks[2];
	int fd;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks), 0);
	assert_int_equal(send(socks[0], &m, sizeof(m), 0), sizeof(m));
	assert_int_equal(vault_receive(socks[1], &got, &fd), -EPROTO);
	assert_int_equal(send(socks[0], &m, sizeof(m) - 1, 0), sizeof(m) - 1);
	assert_int_equal(vault_receive(socks[1], &got, &fd), -EPROTO);
	close(socks[0]);
	assert_int_equal(vault_receive(socks[1], &got, &fd), 0);
	close(socks[1]);
}

/* The dying process had not read everything: what it said still arrives, and then the end. */
static void a_reset_hides_nothing(void **state)
{
	struct vault_record r = { .id = 7 };
	struct vault_message got;
	int socks[2];
	int fd;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks), 0);
	assert_int_equal(vault_send(socks[0], VAULT_OUTCOME, &r, -1), 0);
	assert_int_equal(vault_send(socks[1], VAULT_PUT, &r, -1), 0);
	close(socks[1]);
	assert_int_equal(vault_receive(socks[0], &got, &fd), 1);
	assert_int_equal(got.op, VAULT_PUT);
	assert_int_equal(got.record.id, 7);
	assert_int_equal(vault_receive(socks[0], &got, &fd), 0);
	close(socks[0]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(what_was_said_before_death_is_inherited),
		T(a_server_that_never_was_live_has_no_successor),
		T(incomplete_records_are_not_inherited),
		T(a_record_stays_what_it_is),
		T(a_server_goes_on_alone_when_its_keeper_knows),
		T(a_device_that_is_gone_ends_it),
		T(successors_that_die_are_replaced),
		T(a_signal_stops_both),
		T(other_versions_are_not_understood),
		T(a_reset_hides_nothing),
	};

	if (argc > 4 && strcmp(argv[1], "take-over") == 0)
		return successor(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
