/* SPDX-License-Identifier: MIT */
/*
 * foreign_cost.c [MIB] - what it costs a process that its memory is in place: how long a fork
 * takes, and a discard, as ratios to the same without, measured by turns.  Run by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "foreign.h"

#define ROUNDS 9

static size_t mib = 256;

static double milliseconds(struct foreign *f, enum peer_op op, size_t len)
{
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(peer_do(f->peer, op, 0, len), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
}

static int ascending(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double median(double *times)
{
	qsort(times, ROUNDS, sizeof(*times), ascending);
	return times[ROUNDS / 2];
}

static void compare(const char *what, enum peer_op op)
{
	const size_t len = mib << 20, part = len / FOREIGN_BUFS;
	double times[2][ROUNDS];
	struct foreign *f = foreign_start(len);

	for (int i = 0; i < 2 * ROUNDS; i++) {
		if (i % 2)
			for (unsigned int j = 0; j < FOREIGN_BUFS; j++)
				(void)foreign_take(f, j * part, part);
		times[i % 2][i / 2] = milliseconds(f, op, len);
		if (op == PEER_FORK)
			peer_do(f->peer, PEER_END_CHILD, 0, 0);
		for (unsigned int j = 0; i % 2 && j < FOREIGN_BUFS; j++)
			assert_int_equal(abi_unreg(&f->s, j), 0);
		while (foreign_was_told(f))
			;
		peer_with(f->peer, PEER_TOUCH, 0, len, 1);
	}
	print_message("%s of %zu MiB: %.2f ms in place, %.2f ms without, ratio %.2f\n", what, mib,
		      median(times[1]), median(times[0]),
		      times[1][ROUNDS / 2] / times[0][ROUNDS / 2]);
	foreign_end(f);
}

static void costs(void **state)
{
	(void)state;
	compare("fork", PEER_FORK);
	compare("discard", PEER_DISCARD);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(costs),
	};

	if (argc > 1)
		mib = strtoul(argv[1], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
