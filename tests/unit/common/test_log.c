/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/unit/cmocka_all.h"

#define assert_formats(want, ...)                                                                  \
	do {                                                                                       \
		char got[256];                                                                     \
		assert_int_equal(log_format(got, sizeof(got), __VA_ARGS__), strlen(want));         \
		assert_string_equal(got, want);                                                    \
	} while (0)

static void formats_as_printf_would(void **state)
{
	char longest[64];

	(void)state;
	assert_formats("plain", "plain");
	assert_formats("a%b", "a%%b");
	assert_formats("-7 7 ff x", "%d %u %x %c", -7, 7U, 255U, 'x');
	assert_formats("some text", "%s %s", "some", "text");
	snprintf(longest, sizeof(longest), "%d %lld %llu", INT_MIN, LLONG_MIN, ULLONG_MAX);
	assert_formats(longest, "%d %lld %llu", INT_MIN, LLONG_MIN, ULLONG_MAX);
	assert_formats("18446744073709551615", "%zu", SIZE_MAX);
	assert_formats("0x10", "%p", (void *)16);
}

static void never_writes_past_the_end(void **state)
{
	char buf[8] = "1234567";

	(void)state;
	assert_int_equal(log_format(buf, 4, "%s", "abcdefgh"), 3);
	assert_memory_equal(buf,
			    "abc\0"
			    "567",
			    8);
	assert_int_equal(log_format(buf, 1, "abc"), 0);
}

static void a_line_is_one_write_and_errno_stays(void **state)
{
	char got[LOG_LINE_MAX + 1] = { 0 };
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	log_init("name", LOG_WARN);
	log_set_fd(fds[1]);
	errno = 4711;
	log_line(LOG_INFO, "not this");
	log_line(LOG_WARN, "this %d", 1);
	assert_int_equal(log_error(-ENOENT, "'%s'", "x"), -ENOENT);
	assert_int_equal(errno, 4711);
	assert_true(read(fds[0], got, sizeof(got) - 1) > 0);
	assert_string_equal(got, "name: this 1\nname: 'x': No such file or directory\n");
	close(fds[0]);
	close(fds[1]);
}

static unsigned int with_level(enum log_level level, char *buf, unsigned int size)
{
	return log_format(buf, size, "<%d>", (int)level);
}

static void a_prefix_comes_first(void **state)
{
	char text[LOG_LINE_MAX];
	int fds[2];
	ssize_t len;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	log_set_fd(fds[1]);
	log_prefix(with_level);
	log_line(LOG_WARN, "one");
	log_error(-ENOENT, "two");
	log_prefix(NULL);
	log_line(LOG_WARN, "three");
	log_set_fd(2);
	len = read(fds[0], text, sizeof(text) - 1);
	text[len > 0 ? len : 0] = '\0';
	assert_non_null(strstr(text, "<1>"));
	assert_true(strncmp(text, "<1>", 3) == 0);
	assert_non_null(strstr(text, ": one\n<0>"));
	assert_non_null(strstr(text, "two: No such file or directory\n"));
	assert_null(strstr(strstr(text, "two"), "<1>"));
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(formats_as_printf_would),
		cmocka_unit_test(never_writes_past_the_end),
		cmocka_unit_test(a_line_is_one_write_and_errno_stays),
		cmocka_unit_test(a_prefix_comes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
