/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "server/cli/sizes.h"
#include "tests/unit/cmocka_all.h"

static void sizes(void **state)
{
	static const struct {
		const char *text;
		int ret;
		uint64_t bytes;
	} cases[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "64k", 0, 65536 },
		{ "1M", 0, 1 << 20 },
		{ "2GiB", 0, 2ULL << 30 },
		{ "1t", 0, 1ULL << 40 },
		{ "", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1x", -EINVAL, 0 },
		{ "1kk", -EINVAL, 0 },
		{ "k", -EINVAL, 0 },
		{ "99999999T", -ERANGE, 0 },
		{ "99999999999999999999", -ERANGE, 0 },
		{ "16777216T", -ERANGE, 0 },
		{ "16777215T", 0, 16777215ULL << 40 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 77;

		assert_int_equal(size_parse(cases[i].text, &bytes), cases[i].ret);
		assert_int_equal(bytes, cases[i].ret ? 77 : cases[i].bytes);
	}
}

static void numbers(void **state)
{
	uint64_t n = 77;

	(void)state;
	assert_int_equal(number_parse("5", 5, 7, &n), 0);
	assert_int_equal(n, 5);
	assert_int_equal(number_parse("4", 5, 7, &n), -ERANGE);
	assert_int_equal(number_parse("8", 5, 7, &n), -ERANGE);
	assert_int_equal(number_parse("5k", 5, 7, &n), -EINVAL);
	assert_int_equal(number_parse("", 5, 7, &n), -EINVAL);
	assert_int_equal(n, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(sizes), cmocka_unit_test(numbers) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
