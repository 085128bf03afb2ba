/* SPDX-License-Identifier: MIT */
/*
 * data.c - what a request's data costs: copied to the server, or in registered memory.
 *
 * Over the same writes whose data the server leaves where it is, so what remains is the copy, or
 * the lookup.  These ratios can be compared from driver to driver, also with one that lacks the
 * feature.  Medians, with quartiles.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/vm/abi/abi_helpers.h"

#define ROUNDS 5U
#define WRITES 100U
#define COPY_FLAGS (UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE)

static uint8_t taken[ABI_IO_BYTES];

static int take(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	uint32_t bytes = iod->nr_sectors << 9;

	abi_take(s, tag, taken, bytes);
	return (int)bytes;
}

static int leave(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	(void)tag;
	s->nr_matched += !!(iod->op_flags & UAPI_IO_F_SHMEM_ZC);
	return (int)(iod->nr_sectors << 9);
}

static double seconds_of(struct abi_server *s, const uint8_t *data, size_t bytes)
{
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned int i = 0; i < WRITES; i++)
		if (pwrite(s->disk_fd, data, bytes, ABI_TEST_OFFSET) != (ssize_t)bytes) {
			perror("data: write");
			exit(1);
		}
	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* @with over @without, in turns. */
static void measure(const char *what, struct abi_server *with, struct abi_server *without,
		    const uint8_t *data, size_t bytes)
{
	double ratios[ROUNDS];

	for (unsigned int i = 0; i < ROUNDS; i++) {
		double first = seconds_of(i % 2 ? with : without, data, bytes);
		double second = seconds_of(i % 2 ? without : with, data, bytes);

		ratios[i] = i % 2 ? first / second : second / first;
	}
	qsort(ratios, ROUNDS, sizeof(*ratios), compare);
	printf("%4zu KiB writes, %-40s %6.3f   (%.3f - %.3f)\n", bytes / 1024, what,
	       ratios[ROUNDS / 2], ratios[ROUNDS / 4], ratios[ROUNDS - 1 - ROUNDS / 4]);
	fflush(stdout);
}

static void add_and_start(struct abi_server *s, uint64_t flags, uint8_t *registered,
			  int (*handler)(struct abi_server *s, const struct ublksrv_io_desc *iod,
					 uint16_t tag))
{
	int ret = abi_add(s, flags);

	if (!ret && registered)
		ret = abi_reg(s, registered, ABI_IO_BYTES, 0);
	if (ret < 0) {
		fprintf(stderr, "data: %s\n", strerror(-ret));
		exit(1);
	}
	s->handler = handler;
	abi_start(s);
}

int main(void)
{
	struct abi_server left, copied, matched;
	/* elsewhere it is luck how many runs there are */
	uint8_t *data = map_huge_page(memory_file(HUGE, 0));
	bool has_feature;

	if (!data) {
		fprintf(stderr, "data: no huge page of shared memory\n");
		return 1;
	}
	memset(data, 1, ABI_IO_BYTES);
	add_and_start(&left, COPY_FLAGS, NULL, leave);
	add_and_start(&copied, COPY_FLAGS, NULL, take);
	if (abi_add(&matched, ZC_FLAGS))
		return 1;
	has_feature = matched.flags & UBLK_F_SHMEM_ZC;
	abi_del(&matched);
	if (has_feature)
		add_and_start(&matched, ZC_FLAGS, data, leave);
	else
		printf("(the driver has no shared-memory zero copy)\n");
	for (size_t bytes = PAGE; bytes <= ABI_IO_BYTES; bytes *= bytes < 262144 ? 8 : 4) {
		measure("copied / data left where it is", &copied, &left, data, bytes);
		if (has_feature)
			measure("in registered memory / data left where it is", &matched, &left,
				data, bytes);
	}
	if (has_feature && !matched.nr_matched)
		return 1;
	abi_del(&left);
	abi_del(&copied);
	if (has_feature)
		abi_del(&matched);
	return 0;
}
