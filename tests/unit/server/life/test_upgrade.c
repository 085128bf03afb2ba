/* SPDX-License-Identifier: MIT */
/*
 * Upgrades, as a keeper does them: real processes and programs, but no device.
 *
 * This program is the old one; a copy of it, which knows by its name that it is "new", is
 * installed and does what the test's word says.  All write to a diary.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/wire.h"
#include "keeper_fixture.h"
#include "tests/unit/cmocka_all.h"

static char dir[64];
static char installed[96];

static unsigned int count_in_diary(const char *word)
{
	char text[DIARY_MAX];
	unsigned int nr = 0;

	read_diary(text);
	for (const char *at = text; (at = strstr(at, word)); at++)
		nr++;
	return nr;
}

/* ---- what all servers do ---- */

static void note_outcome(int op, const struct vault_record *r)
{
	char line[64];

	snprintf(line, sizeof(line), "%s %d %s", op == VAULT_TRIED ? "tried" : "told",
		 r->outcome.status,
		 r->outcome.reason == WIRE_OK		     ? "ok"
		 : r->outcome.reason == WIRE_PROGRAM_DIED    ? "died"
		 : r->outcome.reason == WIRE_PROGRAM_FAILS   ? "fails"
		 : r->outcome.reason == WIRE_PROGRAM_SLOW    ? "slow"
		 : r->outcome.reason == WIRE_PROGRAM_MISSING ? "missing"
		 : r->outcome.reason == WIRE_OTHER_RECORDS   ? "records"
		 : r->outcome.reason == WIRE_OTHER_STATE     ? "state"
		 : r->outcome.reason == WIRE_OTHER_OPTIONS   ? "options"
		 : r->outcome.reason == WIRE_UPGRADING	     ? "upgrading"
		 : r->outcome.reason == WIRE_SERVER_DIED     ? "server"
							     : "?");
	write_diary(line);
}

static int ask_and_leave(struct vault *v)
{
	struct vault_record r;
	int op;

	vault_try(v);
	op = vault_hear(v, &r);
	if (!op)
		return EXIT_FAILURE;
	note_outcome(op, &r);
	if (!r.outcome.status)
		vault_leave(v);
	return 0; /* which is the end of it all unless it left */
}

static void be_live_with_a_record(struct vault *v)
{
	struct vault_record r = { .kind = VAULT_USE, .use = { .seq = 5 } };

	vault_put(v, &r, -1);
	vault_ready(v, 9);
}

/* Asks for an upgrade and leaves if it can. */
static int is_upgraded(struct vault *v, void *arg)
{
	(void)arg;
	be_live_with_a_record(v);
	return ask_and_leave(v);
}

static int is_upgraded_and_dies(struct vault *v, void *arg)
{
	struct vault_record r;

	(void)arg;
	be_live_with_a_record(v);
	vault_try(v);
	note_outcome(vault_hear(v, &r), &r);
	raise(SIGKILL);
	return 0;
}

static int leaves_too_soon(struct vault *v, void *arg)
{
	(void)arg;
	vault_ready(v, 9);
	vault_try(v);
	vault_leave(v);
	return 0;
}

static int is_live_and_dies(struct vault *v, void *arg)
{
	(void)arg;
	vault_ready(v, 9);
	raise(SIGKILL);
	return 0;
}

/* ---- programs ---- */

static bool is_new(void)
{
	char path[128];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[n > 0 ? n : 0] = '\0';
	return strstr(path, "/new") != NULL;
}

static unsigned int count_records(struct vault *v)
{
	struct vault_record r;
	unsigned int nr = 0;
	int fd;

	while (vault_next(v, &r, &fd) == 1)
		nr += r.kind == VAULT_USE && r.use.seq == 5;
	return nr;
}

static int rehearse(struct vault *v, const char *what)
{
	if (strcmp(what, "records") == 0)
		return EXIT_OTHER_VAULT;
	if (strcmp(what, "state") == 0)
		return EXIT_OTHER_STATE;
	if (strcmp(what, "options") == 0)
		return EXIT_OTHER_OPTIONS;
	if (strcmp(what, "slow") == 0)
		pause();
	if (strcmp(what, "slow-and-old-dies") == 0) {
		write_diary("rehearses");
		pause();
	}
	if (strcmp(what, "says-nothing") == 0)
		return 0;
	if (strcmp(what, "no-records") != 0 && count_records(v) != 1)
		return EXIT_FAILURE;
	vault_ready(v, 0);
	return 0;
}

/* The first word that the keeper says, into the diary. */
static int serve_until_told(struct vault *v)
{
	struct vault_record r;
	int op = vault_hear(v, &r);

	if (!op)
		return EXIT_FAILURE;
	note_outcome(op, &r);
	return 0;
}

static int new_serves(struct vault *v, const char *what)
{
	struct stat st;

	write_diary("new");
	if (strcmp(what, "dies-at-once") == 0 || strcmp(what, "dies-each-time") == 0)
		raise(SIGKILL);
	if (strcmp(what, "hangs") == 0)
		pause();
	count_records(v);
	vault_ready(v, 9);
	if (strcmp(what, "is-asked-too") == 0) {
		ask_and_leave(v);
		return serve_until_told(v);
	}
	if (strcmp(what, "dies-soon") == 0) {
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
		raise(SIGKILL);
	}
	/* Dies once, after it has proved itself: whether the file is there says it. */
	if (strcmp(what, "dies-later") == 0 && stat(installed, &st) == 0) {
		serve_until_told(v);
		unlink(installed);
		raise(SIGKILL);
	}
	return strcmp(what, "works") == 0 ? serve_until_told(v) : 0;
}

static int program(int argc, char **argv)
{
	struct vault v = { .fd = atoi(argv[3]) };
	const char *what = argv[6];

	(void)argc;
	snprintf(diary, sizeof(diary), "%s", argv[4]);
	snprintf(installed, sizeof(installed), "%s", argv[5]);
	if (strcmp(argv[1], "rehearse") == 0)
		return rehearse(&v, what);
	if (is_new())
		return new_serves(&v, what);
	write_diary("old");
	if (strcmp(what, "no-records") == 0 || strcmp(what, "slow-and-old-dies") == 0) {
		vault_ready(&v, 9);
		raise(SIGKILL);
	}
	count_records(&v);
	vault_ready(&v, 9);
	if (serve_until_told(&v))
		return EXIT_FAILURE;
	if (strcmp(what, "dies-each-time") == 0 && count_in_diary("new;") <= KEEPER_DEATHS)
		return ask_and_leave(&v);
	return 0;
}

/* ---- tests ---- */

static pid_t begin(int (*serve)(struct vault *v, void *arg), const char *what)
{
	char *argv[] = { diary, installed, (char *)what };
	struct keeper_start start = {
		.serve = serve,
		.argv = argv,
		.argc = 3,
		.times = { .rehearsal = 30000, .start = 30000, .probation = 300 },
		.program = installed,
	};

	if (strcmp(what, "slow") == 0)
		start.times.rehearsal = 1000;
	if (strcmp(what, "slow-and-old-dies") == 0)
		start.times.rehearsal = 1000000; /* nobody waits for that */
	if (strcmp(what, "hangs") == 0)
		start.times.start = 4000;
	if (strcmp(what, "dies-soon") == 0)
		start.times.probation = 60000; /* however busy the machine is */
	if (strcmp(what, "is-asked-too") == 0)
		start.times.probation = 3000;
	return start_keeper(&start);
}

static int upgrade(int (*serve)(struct vault *v, void *arg), const char *what)
{
	return status_of(begin(serve, what));
}

static void copy(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	struct stat st;

	assert_int_equal(fstat(in, &st), 0);
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(out, in, NULL, (size_t)left);

		assert_true(n > 0);
		left -= n;
	}
	close(in);
	close(out);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/test_upgrade.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(diary, sizeof(diary), "%s/diary", dir);
	snprintf(installed, sizeof(installed), "%s/new", dir);
	copy("/proc/self/exe", installed);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(diary);
	unlink(installed);
	return rmdir(dir);
}

static void the_new_program_serves(void **state)
{
	(void)state;
	assert_int_equal(upgrade(is_upgraded, "works"), 0);
	expect_diary("ready 9;tried 0 ok;new;told 0 ok;");
}

/* What does not pass the rehearsal never serves. */
static void is_refused(const char *what, const char *why)
{
	char want[64];

	assert_int_equal(upgrade(is_upgraded, what), 0);
	snprintf(want, sizeof(want), "ready 9;tried %s;", why);
	expect_diary(want);
	unlink(diary);
}

static void a_program_that_does_not_understand_is_refused(void **state)
{
	char words[32];

	(void)state;
	snprintf(words, sizeof(words), "%d records", -EPROTO);
	is_refused("records", words);
	snprintf(words, sizeof(words), "%d state", -EBADMSG);
	is_refused("state", words);
	snprintf(words, sizeof(words), "%d options", -EINVAL);
	is_refused("options", words);
	snprintf(words, sizeof(words), "%d slow", -ETIMEDOUT);
	is_refused("slow", words);
	snprintf(words, sizeof(words), "%d fails", -ENOEXEC);
	is_refused("says-nothing", words);
}

static void another_program_altogether_is_refused(void **state)
{
	static const char *const others[] = { "/bin/false", "/bin/true", "/etc/passwd", NULL };
	char words[32];

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		unlink(installed);
		if (others[i])
			assert_int_equal(symlink(others[i], installed), 0);
		snprintf(words, sizeof(words), "%d %s",
			 i < 2	  ? -ENOEXEC
			 : i == 2 ? -EACCES
				  : -ENOENT,
			 i < 2 ? "fails" : "missing");
		is_refused("works", words);
	}
	assert_int_equal(symlink("/bin/true", installed), 0); /* for the teardown */
}

static void one_that_dies_at_once_gives_way_to_the_old(void **state)
{
	char want[64];

	(void)state;
	assert_int_equal(upgrade(is_upgraded, "dies-at-once"), 0);
	snprintf(want, sizeof(want), "ready 9;tried 0 ok;new;old;told %d died;", -ENOEXEC);
	expect_diary(want);
}

static void one_that_dies_soon_gives_way_to_the_old(void **state)
{
	char want[64];

	(void)state;
	assert_int_equal(upgrade(is_upgraded, "dies-soon"), 0);
	snprintf(want, sizeof(want), "ready 9;tried 0 ok;new;old;told %d died;", -ENOEXEC);
	expect_diary(want);
}

/* Its deaths are not the old one's, which goes on however often the new one is tried. */
static void one_that_dies_each_time_is_not_taken_for_the_better_one(void **state)
{
	char want[1024];
	int n;

	(void)state;
	assert_int_equal(upgrade(is_upgraded, "dies-each-time"), 0);
	n = snprintf(want, sizeof(want), "ready 9;");
	for (unsigned int i = 0; i <= KEEPER_DEATHS; i++)
		n += snprintf(want + n, sizeof(want) - (size_t)n,
			      "tried 0 ok;new;old;told %d died;", -ENOEXEC);
	expect_diary(want);
}

static void one_that_hangs_gives_way_to_the_old(void **state)
{
	char want[64];

	(void)state;
	assert_int_equal(upgrade(is_upgraded, "hangs"), 0);
	snprintf(want, sizeof(want), "ready 9;tried 0 ok;new;old;told %d died;", -ENOEXEC);
	expect_diary(want);
}

/* Nor does it matter that its file is gone: the keeper has it open. */
static void one_that_has_proved_itself_comes_back(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(upgrade(is_upgraded, "dies-later"), 0);
	expect_diary("ready 9;tried 0 ok;new;told 0 ok;new;");
	fd = creat(installed, 0700); /* for the teardown */
	close(fd);
}

/* A crash is no upgrade: what is installed is looked at when the old one keeps dying. */
static void a_program_that_keeps_dying_gives_way_to_the_installed(void **state)
{
	(void)state;
	assert_int_equal(upgrade(is_live_and_dies, "no-records"), 0);
	expect_diary("ready 9;old;old;new;");
}

/* One at a time; and who asked for the first hears of its end all the same. */
static void a_second_upgrade_on_probation_is_refused(void **state)
{
	char want[96];

	(void)state;
	assert_int_equal(upgrade(is_upgraded, "is-asked-too"), 0);
	snprintf(want, sizeof(want), "ready 9;tried 0 ok;new;tried %d upgrading;told 0 ok;",
		 -EBUSY);
	expect_diary(want);
}

/* Who asked may be among its clients, and waits. */
static void a_server_that_dies_before_it_leaves_is_told_of(void **state)
{
	char want[64];

	(void)state;
	assert_int_equal(upgrade(is_upgraded_and_dies, "works"), 0);
	snprintf(want, sizeof(want), "ready 9;tried 0 ok;old;told %d server;", -EOWNERDEAD);
	expect_diary(want);
}

static void nobody_leaves_for_what_is_still_being_tried(void **state)
{
	(void)state;
	assert_int_equal(upgrade(leaves_too_soon, "slow"), 0);
	expect_diary("ready 9;");
}

static void a_keeper_that_tries_a_program_can_be_stopped(void **state)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	pid_t keeper = begin(is_live_and_dies, "slow-and-old-dies");

	(void)state;
	while (!count_in_diary("rehearses") && kill(keeper, 0) == 0)
		nanosleep(&pause, NULL);
	kill(keeper, SIGTERM);
	assert_int_equal(status_of(keeper), EXIT_FAILURE);
	expect_diary("ready 9;old;old;rehearses;");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(the_new_program_serves),
		T(a_program_that_does_not_understand_is_refused),
		T(another_program_altogether_is_refused),
		T(one_that_dies_at_once_gives_way_to_the_old),
		T(one_that_dies_soon_gives_way_to_the_old),
		T(one_that_dies_each_time_is_not_taken_for_the_better_one),
		T(one_that_hangs_gives_way_to_the_old),
		T(one_that_has_proved_itself_comes_back),
		T(a_program_that_keeps_dying_gives_way_to_the_installed),
		T(a_second_upgrade_on_probation_is_refused),
		T(a_server_that_dies_before_it_leaves_is_told_of),
		T(nobody_leaves_for_what_is_still_being_tried),
		T(a_keeper_that_tries_a_program_can_be_stopped),
	};

	if (argc > 6 && (strcmp(argv[1], "take-over") == 0 || strcmp(argv[1], "rehearse") == 0))
		return program(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
