/* SPDX-License-Identifier: MIT */
/* The users' own profiles: lines, words, and files that are none. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "preload/config.h"
#include "preload/profile.h"
#include "tests/unit/cmocka_all.h"

static int log_pipe[2];
static char file[] = "/tmp/test-profile-XXXXXX";

static const char *complaints(void)
{
	static char text[8192];
	ssize_t len = read(log_pipe[0], text, sizeof(text) - 1);

	text[len > 0 ? len : 0] = '\0';
	return text;
}

static int setup(void **state)
{
	char *none = NULL;

	(void)state;
	complaints();
	config_read(&none, &config);
	strcpy(file, "/tmp/test-profile-XXXXXX");
	close(mkstemp(file));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(file);
	rmdir(file);
	return 0;
}

static void write_file(const char *text, size_t len)
{
	int fd = open(file, O_WRONLY | O_TRUNC);

	assert_int_equal(write(fd, text, len), (ssize_t)len);
	close(fd);
	strcpy(config.profiles, file);
}

static void words_mean_what_they_say(void **state)
{
	struct profile p = { 0 };
	static const char text[] = "# a comment\n"
				   "other malloc=9999\n"
				   "\n"
				   " mydb \t malloc=8192 mmap no-ahead # and this\r\n";

	(void)state;
	assert_true(profile_parse(text, strlen(text), "mydb", "test", &p));
	assert_int_equal(p.malloc_min, 8192);
	assert_int_equal(p.mmap_min, PROFILE_MMAP_MIN);
	assert_true(p.no_ahead);
	assert_false(p.off);
	assert_true(profile_parse(text, strlen(text), "other", "test", &p));
	assert_int_equal(p.malloc_min, 9999);
	assert_int_equal(p.mmap_min, 0);
	assert_false(profile_parse(text, strlen(text), "my", "test", &p));
	assert_string_equal(complaints(), "");
}

static void the_last_line_counts_and_semicolons_end_lines(void **state)
{
	struct profile p = { 0 };
	static const char text[] = "a malloc;a off";

	(void)state;
	assert_true(profile_parse(text, strlen(text), "a", "test", &p));
	assert_true(p.off);
	assert_int_equal(p.malloc_min, 0);
}

static void malformed_lines_are_said_and_ignored(void **state)
{
	static const char *const bad[] = {
		"a bogus",     "a malloc=", "a malloc=x", "a malloc=511",
		"a malloc=-1", "a mallocs", "a mmap=1 ",  "a off malloc=99999999999999999999"
	};
	struct profile p;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(profile_parse(bad[i], strlen(bad[i]), "a", "here", &p));
		assert_non_null(strstr(complaints(), "here: the line of a is ignored"));
	}
}

static void a_variable_beats_the_file_beats_the_table(void **state)
{
	(void)state;
	assert_int_equal(profile_choose("fio")->mmap_min, 4096);
	write_file("fio mmap=5000", 13);
	assert_int_equal(profile_choose("fio")->mmap_min, 5000);
	assert_int_equal(profile_choose("fio")->malloc_min, 0);
	assert_int_equal(profile_choose("mariadbd")->mmap_min, PROFILE_MMAP_MIN);
	strcpy(config.profile, "fio mmap=6000; mariadbd off");
	assert_int_equal(profile_choose("fio")->mmap_min, 6000);
	assert_true(profile_choose("mariadbd")->off);
	assert_int_equal(profile_choose(NULL)->malloc_min, 0);
	assert_string_equal(complaints(), "");
}

/* ---- found by name ---- */

static char dir[64];

static void write_below(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", dir, name);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int make_dirs(void **state)
{
	char path[128];

	setup(state);
	strcpy(dir, "/tmp/test-profiles-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/user", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/system", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(config.profiles, sizeof(config.profiles), "%s/user:%s/system", dir, dir);
	return 0;
}

static int remove_dirs(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	assert_int_equal(system(command), 0);
	return teardown(state);
}

static void a_directory_has_a_file_for_each_program(void **state)
{
	(void)state;
	assert_int_equal(profile_choose("mydb")->mmap_min, 0);
	write_below("/system/mydb", "# learnt\nmydb mmap=4096\n");
	assert_int_equal(profile_choose("mydb")->mmap_min, 4096);
	assert_int_equal(profile_choose("other")->mmap_min, 0);
	write_below("/user/mydb", "mydb malloc=8192\n");
	assert_int_equal(profile_choose("mydb")->mmap_min, 0);
	assert_int_equal(profile_choose("mydb")->malloc_min, 8192);
	write_below("/system/fio", "fio mmap=5000");
	assert_int_equal(profile_choose("fio")->mmap_min, 5000);
	strcpy(config.profile, "fio mmap=6000");
	assert_int_equal(profile_choose("fio")->mmap_min, 6000);
	assert_string_equal(complaints(), "");
}

static void what_is_not_there_is_said_and_the_next_taken(void **state)
{
	(void)state;
	write_below("/system/mydb", "mydb mmap=4096\n");
	snprintf(config.profiles, sizeof(config.profiles), "%s/none::%s/system:", dir, dir);
	assert_int_equal(profile_choose("mydb")->mmap_min, 4096);
	assert_non_null(strstr(complaints(), "/none' is ignored: No such file"));
}

static void names_that_are_no_files_have_no_profile(void **state)
{
	(void)state;
	assert_int_equal(profile_choose("..")->malloc_min, 0);
	assert_int_equal(profile_choose(".")->malloc_min, 0);
	assert_int_equal(profile_choose("")->malloc_min, 0);
	write_below("/system/bad", "bad mollac");
	assert_int_equal(profile_choose("bad")->malloc_min, 0);
	assert_non_null(strstr(complaints(), "'mollac' is not malloc"));
}

static void strange_files_are_said_and_ignored(void **state)
{
	size_t len = PROFILES_FILE_MAX + 1;
	char *big = malloc(len);

	(void)state;
	memset(big, 'x', len);
	write_file(big, len);
	assert_int_equal(profile_choose("fio")->mmap_min, 4096);
	assert_non_null(strstr(complaints(), "is ignored: over 65536 bytes"));
	/* The longest there may be, one line without an end. */
	write_file(big, PROFILES_FILE_MAX);
	assert_int_equal(profile_choose("fio")->mmap_min, 4096);
	memset(big, 0, len);
	write_file(big, 1000);
	assert_int_equal(profile_choose("fio")->mmap_min, 4096);
	free(big);
	complaints();
	unlink(file);
	assert_int_equal(profile_choose("fio")->mmap_min, 4096);
	assert_non_null(strstr(complaints(), "No such file"));
	/* A pipe that nobody writes to must not be waited for. */
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_int_equal(profile_choose("fio")->mmap_min, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(words_mean_what_they_say, setup, teardown),
		cmocka_unit_test_setup_teardown(the_last_line_counts_and_semicolons_end_lines,
						setup, teardown),
		cmocka_unit_test_setup_teardown(malformed_lines_are_said_and_ignored, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_variable_beats_the_file_beats_the_table, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_directory_has_a_file_for_each_program, make_dirs,
						remove_dirs),
		cmocka_unit_test_setup_teardown(what_is_not_there_is_said_and_the_next_taken,
						make_dirs, remove_dirs),
		cmocka_unit_test_setup_teardown(names_that_are_no_files_have_no_profile, make_dirs,
						remove_dirs),
		cmocka_unit_test_setup_teardown(strange_files_are_said_and_ignored, setup,
						teardown),
	};

	assert_int_equal(pipe2(log_pipe, O_NONBLOCK), 0);
	log_init("test", LOG_WARN);
	log_set_fd(log_pipe[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
