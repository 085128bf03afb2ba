/* SPDX-License-Identifier: MIT */
/* Histograms of latency: every time has its bucket, and percentiles are near the truth. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/life/latency.h"
#include "tests/unit/cmocka_all.h"

static void buckets_follow_each_other(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < LATENCY_BUCKETS; i++) {
		assert_true(latency_bound(i) < latency_bound(i + 1));
		assert_int_equal(latency_bucket(latency_bound(i)), i);
		assert_int_equal(latency_bucket(latency_bound(i + 1) - 1), i);
		if (i >= 4)
			assert_true(latency_bound(i + 1) * 4 <= latency_bound(i) * 5);
	}
	assert_int_equal(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
	assert_true(latency_bound(LATENCY_BUCKETS) > 30ULL * 1000000000);
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void percentiles_are_near_the_truth(void **state)
{
	static const double percents[] = { 1, 50, 90, 99, 99.9, 100 };
	static uint64_t times[20000];
	const size_t nr = sizeof(times) / sizeof(times[0]);
	struct latency l;

	(void)state;
	for (unsigned int seed = 1; seed < 20; seed++) {
		memset(&l, 0, sizeof(l));
		srand(seed);
		for (size_t i = 0; i < nr; i++) {
			times[i] = 4096ULL + (uint64_t)rand() % 100000 * ((uint64_t)rand() % 1000);
			latency_add(&l, times[i], 3);
		}
		qsort(times, nr, sizeof(times[0]), by_size);
		assert_int_equal(latency_count(&l), 3 * nr);
		for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
			size_t rank = (size_t)((double)nr * percents[i] / 100);
			double truth = (double)times[rank ? rank - 1 : 0];
			double told = (double)latency_percentile(&l, percents[i]);

			if (told < truth * 0.75 || told > truth * 1.3)
				fail_msg("seed %u: %.1f %%: %f, not %f", seed, percents[i], told,
					 truth);
		}
	}
}

static void of_nothing_there_is_none(void **state)
{
	struct latency l;

	(void)state;
	memset(&l, 0, sizeof(l));
	assert_int_equal(latency_percentile(&l, 50), 0);
	latency_add(&l, 0, 1);
	assert_true(latency_percentile(&l, 100) <= 1024);
	assert_int_equal(latency_count(&l), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_follow_each_other),
		cmocka_unit_test(percentiles_are_near_the_truth),
		cmocka_unit_test(of_nothing_there_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
