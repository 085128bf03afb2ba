/* SPDX-License-Identifier: MIT */
/*
 * latency.h - how long requests took, as a histogram in shared memory.
 *
 * A bucket for each quarter of a power of two, so that a percentile is off by a fifth at most;
 * from 1 us to half a minute.  One thread adds, anybody reads.
 */
#ifndef UBLKZC_SERVER_LATENCY_H
#define UBLKZC_SERVER_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

#define LATENCY_BUCKETS 96U

struct latency {
	_Atomic uint64_t ns; /* of all requests together */
	_Atomic uint64_t buckets[LATENCY_BUCKETS];
};

/* The bucket of @ns. */
static inline unsigned int latency_bucket(uint64_t ns)
{
	uint64_t us = ns >> 10;
	unsigned int top, bucket;

	if (us < 4)
		return (unsigned int)us;
	top = 61U - (unsigned int)__builtin_clzll(us); /* two bits below the highest are kept */
	bucket = 4 * top + (unsigned int)(us >> top & 3) + 4;
	return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

/* @nr requests took @ns each.  For the one thread that writes. */
static inline void latency_add(struct latency *l, uint64_t ns, unsigned int nr)
{
	_Atomic uint64_t *bucket = &l->buckets[latency_bucket(ns)];

	atomic_store_explicit(&l->ns, atomic_load_explicit(&l->ns, memory_order_relaxed) + nr * ns,
			      memory_order_relaxed);
	atomic_store_explicit(bucket, atomic_load_explicit(bucket, memory_order_relaxed) + nr,
			      memory_order_relaxed);
}

/* The least that falls into @bucket, in ns; of LATENCY_BUCKETS: where the last one ends. */
uint64_t latency_bound(unsigned int bucket);

/* How many requests were counted. */
uint64_t latency_count(const struct latency *l);

/* What @percent of them did not exceed, in ns; 0 when there are none. */
uint64_t latency_percentile(const struct latency *l, double percent);

#endif
