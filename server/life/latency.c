/* SPDX-License-Identifier: MIT */
/* latency.c - see latency.h: what readers need. */
#include "latency.h"

uint64_t latency_bound(unsigned int bucket)
{
	uint64_t us = bucket;

	if (bucket >= 4)
		us = (uint64_t)(4 + bucket % 4) << (bucket / 4 - 1);
	return us << 10;
}

static uint64_t in_bucket(const struct latency *l, unsigned int i)
{
	return atomic_load_explicit(&l->buckets[i], memory_order_relaxed);
}

uint64_t latency_count(const struct latency *l)
{
	uint64_t nr = 0;

	for (unsigned int i = 0; i < LATENCY_BUCKETS; i++)
		nr += in_bucket(l, i);
	return nr;
}

uint64_t latency_percentile(const struct latency *l, double percent)
{
	double rank = (double)latency_count(l) * percent / 100;
	double below = 0;

	if (rank <= 0)
		return 0;
	for (unsigned int i = 0; i < LATENCY_BUCKETS; i++) {
		double here = (double)in_bucket(l, i);
		double from = (double)latency_bound(i);

		/* Within a bucket they are taken to be spread evenly. */
		if (here > 0 && below + here >= rank)
			return (uint64_t)(from + ((double)latency_bound(i + 1) - from) *
							 (rank - below) / here);
		below += here;
	}
	return latency_bound(LATENCY_BUCKETS);
}
