/* SPDX-License-Identifier: MIT */
/* test_features.c - which driver answers, in words. */
#include "server/device/features.h"
#include "tests/unit/cmocka_all.h"

static void assert_described(const char *version, const char *release, const char *expected)
{
	char text[160];

	driver_describe(text, sizeof(text), version, release);
	assert_string_equal(text, expected);
}

static void drivers_are_told_by_their_version(void **state)
{
	(void)state;
	assert_described("0.1.0-ublkzc", "7.3.4+deb13-amd64", "ublkzc's driver 0.1.0 for 7.3");
	assert_described("0.1.0.1-ublkzc", "6.12.117+deb12-amd64",
			 "ublkzc's driver 0.1.0.1 for 6.12");
	assert_described("", "7.3.4+deb13-amd64", "the stock driver of 7.3");
	assert_described("2.0", "7.3-rc1", "a driver of version 2.0, on 7.3");
	assert_described("-ublkzc", "7.3", "a driver of version -ublkzc, on 7.3");
	assert_described("", "odd", "the stock driver of odd");
	assert_described("", "", "the stock driver of ");
}

static void features_have_the_names_of_the_uapi(void **state)
{
	(void)state;
	assert_string_equal(feature_name(0), "SUPPORT_ZERO_COPY");
	assert_string_equal(feature_name(19), "SHMEM_ZC");
	assert_string_equal(feature_name(20), "IO_DESC_SIZE");
	assert_string_equal(feature_name(62), "SHMEM_LIST (kernel-patch)");
	assert_string_equal(feature_name(61), "SHMEM_SEGS (kernel-patch)");
	assert_string_equal(feature_name(60), "SHMEM_FOREIGN (kernel-patch)");
	assert_string_equal(feature_name(59), "SHMEM_HINTS (kernel-patch)");
	assert_null(feature_name(40));
	assert_null(feature_name(63));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(drivers_are_told_by_their_version),
		cmocka_unit_test(features_have_the_names_of_the_uapi),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
