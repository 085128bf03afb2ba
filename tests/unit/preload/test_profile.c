/* SPDX-License-Identifier: MIT */
/* The users' own profiles: lines, words, and files that are none. */
#include <fcntl.h>
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
	assert_int_equal(mkdir(file, 0700), 0);
	assert_int_equal(profile_choose("fio")->mmap_min, 4096);
	assert_non_null(strstr(complaints(), "is ignored"));
	rmdir(file);
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
		cmocka_unit_test_setup_teardown(strange_files_are_said_and_ignored, setup,
						teardown),
	};

	assert_int_equal(pipe2(log_pipe, O_NONBLOCK), 0);
	log_init("test", LOG_WARN);
	log_set_fd(log_pipe[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
