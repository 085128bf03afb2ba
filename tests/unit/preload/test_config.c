/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "preload/config.h"
#include "preload/profile.h"
#include "tests/unit/cmocka_all.h"

static int log_pipe[2];

/* What is complained about, one line each. */
static const char *complaints(void)
{
	static char text[4096];
	ssize_t len = read(log_pipe[0], text, sizeof(text) - 1);

	text[len > 0 ? len : 0] = '\0';
	return text;
}

static struct config read_one(const char *text)
{
	char *list[] = { (char *)"PATH=/bin", (char *)text, NULL };
	struct config c;

	config_read(list, &c);
	return c;
}

static void defaults(void **state)
{
	struct config c = read_one("OTHER=1");

	(void)state;
	assert_false(c.disable || c.stats);
	assert_int_equal(c.capture, CAPTURE_AUTO);
	assert_int_equal(c.fork, FORK_AUTO);
	assert_int_equal(c.malloc_min, 0);
	assert_int_equal(c.mmap_min, 0);
	assert_int_equal(c.connect_ms, 200);
	assert_string_equal(c.socket_dir, "/run/ublkzc");
	assert_string_equal(complaints(), "");
}

static void values_are_taken(void **state)
{
	(void)state;
	assert_true(read_one("UBLKZC_DISABLE=1").disable);
	assert_true(read_one("UBLKZC_STATS=yes").stats);
	assert_false(read_one("UBLKZC_STATS=0").stats);
	assert_int_equal(read_one("UBLKZC_CAPTURE=malloc").capture, CAPTURE_MALLOC);
	assert_int_equal(read_one("UBLKZC_CAPTURE=none").capture, CAPTURE_NONE);
	assert_int_equal(read_one("UBLKZC_FORK=private").fork, FORK_PRIVATE);
	assert_int_equal(read_one("UBLKZC_LOG=debug").log_level, LOG_DEBUG);
	assert_int_equal(read_one("UBLKZC_ARENA_MB=32").arena_first, 32 << 20);
	assert_int_equal(read_one("UBLKZC_CONNECT_MS=0").connect_ms, 0);
	assert_string_equal(read_one("UBLKZC_SOCKET_DIR=/x").socket_dir, "/x");
	assert_string_equal(complaints(), "");
}

static void what_is_malformed_is_said_and_ignored(void **state)
{
	static const char *const bad[] = {
		"UBLKZC_DISABLE=maybe",	      "UBLKZC_MALLOC_MIN=",
		"UBLKZC_MALLOC_MIN=12x",      "UBLKZC_MALLOC_MIN=1",
		"UBLKZC_FORK=child",	      "UBLKZC_CONNECT_MS=99999999999999999999",
		"UBLKZC_SOCKET_DIR=here",     "UBLKZC_CAPTURE=mal",
		"UBLKZC_NO_SUCH_THING=1",     "UBLKZC_CAPTURE",
		"UBLKZC_FORK_COPY_MAX_MB=-1",
	};
	struct config expected = read_one("OTHER=1");

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct config c = read_one(bad[i]);
		const char *text;

		assert_memory_equal(&c, &expected, sizeof(c));
		text = complaints();
		assert_non_null(strstr(text, "is ignored"));
		assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* one line */
	}
}

static void profiles(void **state)
{
	(void)state;
	assert_int_equal(profile_of("fio")->malloc_min, PROFILE_MALLOC_MIN);
	assert_int_equal(profile_of("fi")->malloc_min, 0);
	assert_int_equal(profile_of("mariadbd")->malloc_min, 0);
	assert_int_equal(profile_of("mariadbd")->mmap_min, PROFILE_MMAP_MIN);
	assert_int_equal(profile_of("postgres")->malloc_min, 0);
	assert_true(profile_of("postgres")->no_ahead);
	assert_int_equal(profile_of(NULL)->mmap_min, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(values_are_taken),
		cmocka_unit_test(what_is_malformed_is_said_and_ignored),
		cmocka_unit_test(profiles),
	};

	if (pipe2(log_pipe, O_NONBLOCK))
		return 1;
	log_set_fd(log_pipe[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
