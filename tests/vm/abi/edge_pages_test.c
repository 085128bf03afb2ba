/* SPDX-License-Identifier: MIT */
/*
 * edge_pages_test.c - whose are these physical pages?
 *
 * Buffers that share pages, buffers that are physically adjacent, huge pages of which a part is
 * registered, pages in another order than the physical one, and numbers at their limits.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define MIB (1UL << 20)

/* ---- the same page in two buffers ---- */

static int register_and_read_elsewhere(struct abi_server *s, int fd)
{
	uint8_t *p = map_file(fd, 8 * PAGE);

	if (abi_reg(s, p, 8 * PAGE, 0) != -EEXIST || abi_reg(s, p + 7 * PAGE, PAGE, 0) != -EEXIST)
		return 1;
	return read_matches(s, p + 3 * PAGE, PAGE) ? 0 : 2;
}

static void memory_of_two_owners_has_one_registration(void **state)
{
	struct abi_server s;
	int fd = memory_file(8 * PAGE, 0);
	uint8_t *first = map_file(fd, 8 * PAGE);
	uint8_t *second = map_file(fd, 8 * PAGE);
	int status;
	pid_t pid;

	(void)state;
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, first, 8 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, second, 8 * PAGE, 0), -EEXIST);
	assert_int_equal(abi_reg(&s, second + 4 * PAGE, PAGE, UAPI_SHMEM_BUF_READ_ONLY), -EEXIST);
	assert_int_equal(pinned(), 8); /* what was refused is not pinned */
	/* it is the pages that count, not who maps them, or where */
	assert_true(read_matches(&s, second + 2 * PAGE, 2 * PAGE));
	assert_last(&s, 0, 2 * PAGE);
	pid = fork();
	if (pid == 0)
		_exit(register_and_read_elsewhere(&s, fd));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_last(&s, 0, 3 * PAGE);
	/* one owner goes: the other's turn */
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_false(read_matches(&s, second, PAGE));
	assert_int_equal(abi_reg(&s, second, 4 * PAGE, 0), 0);
	assert_true(read_matches(&s, first, 4 * PAGE));
	assert_false(read_matches(&s, first + 3 * PAGE, 2 * PAGE));
	abi_del(&s);
	munmap(first, 8 * PAGE);
	munmap(second, 8 * PAGE);
	close(fd);
	assert_nothing_pinned();
}

/* ---- physically adjacent, but not in one buffer ---- */

static long huge_pages_reserved(long nr)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "r+");
	long had = 0;

	if (!f && errno == ENOENT)
		return 0; /* a kernel without huge pages */
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%ld", &had), 1);
	if (nr >= 0) {
		rewind(f);
		fprintf(f, "%ld\n", nr);
	}
	fclose(f);
	return had;
}

/* All of a huge page is one segment of a request, and three buffers. */
static void segments_over_adjacent_buffers_are_copied(void **state)
{
	const long had = huge_pages_reserved(-1);
	struct abi_server s;
	uint8_t *p;
	int fd;

	(void)state;
	huge_pages_reserved(had + 3);
	if (huge_pages_reserved(-1) < had + 3) {
		huge_pages_reserved(had);
		print_message("no 3 huge pages to be had\n");
		skip();
	}
	fd = memory_file(3 * HUGE, MFD_HUGETLB);
	p = map_file(fd, 3 * HUGE);
	memset(p, 0, 3 * HUGE);
	add_zc(&s);
	abi_start(&s);
	/* a part of a huge page, the rest is nobody's */
	assert_int_equal(abi_reg(&s, p, MIB, 0), 0);
	assert_true(read_matches(&s, p + MIB - PAGE, PAGE));
	assert_last(&s, 0, MIB - PAGE);
	assert_false(read_matches(&s, p + MIB - PAGE, 2 * PAGE));
	/* the rest is another's */
	assert_int_equal(abi_reg(&s, p + MIB, MIB - PAGE, 0), 1);
	assert_int_equal(abi_reg(&s, p + HUGE - PAGE, HUGE + PAGE, 0), 2);
	assert_true(read_matches(&s, p + MIB, 64 * PAGE));
	assert_last(&s, 1, 0);
	assert_false(read_matches(&s, p + MIB - PAGE, 2 * PAGE));
	assert_false(read_matches(&s, p + HUGE - 2 * PAGE, 2 * PAGE));
	assert_false(read_matches(&s, p + MIB - 512, 1024));
	assert_true(
		read_matches(&s, p + HUGE - PAGE, 3 * PAGE)); /* from one huge page to the next */
	assert_last(&s, 2, 0);
	assert_false(read_matches(&s, p + 2 * HUGE - PAGE, 2 * PAGE)); /* the third is nobody's */
	/* all of it is one's */
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(abi_unreg(&s, i), 0);
	assert_int_equal(abi_reg(&s, p, 3 * HUGE, 0), 0);
	assert_true(read_matches(&s, p + 2 * HUGE - MIB / 2, MIB));
	assert_last(&s, 0, 2 * HUGE - MIB / 2);
	assert_true(write_matches(&s, p + MIB - 512, 1024));
	abi_del(&s);
	munmap(p, 3 * HUGE);
	close(fd);
	huge_pages_reserved(had);
	assert_nothing_pinned();
}

#define NR_HUGE 8U

/* Two huge pages of @fd that follow each other physically, mapped so; NULL if there are none. */
static uint8_t *map_neighbours(int fd, const uint8_t *p)
{
	for (unsigned int i = 0; i < NR_HUGE; i++) {
		for (unsigned int j = 0; j < NR_HUGE; j++) {
			uint8_t *both;

			if (frame_of(p + j * HUGE) != frame_of(p + i * HUGE) + HUGE / PAGE)
				continue;
			both = mmap(NULL, 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			both = (uint8_t *)(((uintptr_t)both + HUGE - 1) & ~(HUGE - 1));
			for (unsigned int k = 0; k < 2; k++)
				assert_true(mmap(both + k * HUGE, HUGE, PROT_READ | PROT_WRITE,
						 MAP_SHARED | MAP_FIXED, fd,
						 (off_t)((k ? j : i) * HUGE)) != MAP_FAILED);
			return both;
		}
	}
	return NULL;
}

/* Found by any of its pages, not just by those near its start. */
static void a_run_of_two_huge_pages_matches_anywhere(void **state)
{
	const long had = huge_pages_reserved(-1);
	struct abi_server s;
	uint8_t *p, *both = NULL;
	int fd;

	(void)state;
	huge_pages_reserved(had + NR_HUGE);
	if (huge_pages_reserved(-1) >= had + (long)NR_HUGE) {
		fd = memory_file(NR_HUGE * HUGE, MFD_HUGETLB);
		p = map_file(fd, NR_HUGE * HUGE);
		memset(p, 0, NR_HUGE * HUGE);
		both = map_neighbours(fd, p);
		munmap(p, NR_HUGE * HUGE);
		close(fd);
	}
	if (!both) {
		huge_pages_reserved(had);
		print_message("no two huge pages are neighbours\n");
		skip();
	}
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, both, 2 * HUGE, 0), 0);
	assert_true(read_matches(&s, both + 2 * HUGE - PAGE, PAGE));
	assert_last(&s, 0, 2 * HUGE - PAGE);
	assert_true(read_matches(&s, both + HUGE + PAGE, 64 * PAGE));
	assert_last(&s, 0, HUGE + PAGE);
	assert_true(read_matches(&s, both + HUGE - PAGE, 2 * PAGE));
	assert_int_equal(abi_reg(&s, both + HUGE, PAGE, 0), -EEXIST);
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_int_equal(abi_reg(&s, both + HUGE, HUGE, 0), 0);
	assert_false(read_matches(&s, both, PAGE));
	assert_false(read_matches(&s, both + HUGE - PAGE, 2 * PAGE));
	assert_true(read_matches(&s, both + HUGE, 2 * PAGE));
	abi_del(&s);
	munmap(both, 2 * HUGE);
	huge_pages_reserved(had);
	assert_nothing_pinned();
}

/* The buffer has a huge page's small pages in another order than the client. */
static void physical_order_is_not_the_buffers(void **state)
{
	static const unsigned int order[4] = { 2, 3, 0, 1 };
	struct abi_server s;
	int fd = memory_file(HUGE, 0);
	uint8_t *straight = map_huge_page(fd);
	uint8_t *mixed = shared_pages(4);

	(void)state;
	if (!straight) {
		close(fd);
		print_message("no huge page of shared memory to be had\n");
		skip();
	}
	for (unsigned int i = 0; i < 4; i++) {
		assert_true(mmap(mixed + i * PAGE, PAGE, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_FIXED, fd, order[i] * PAGE) != MAP_FAILED);
		mixed[i * PAGE] = 0;
	}
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, mixed, 4 * PAGE, 0), 0);
	assert_true(read_matches(&s, mixed, 4 * PAGE));
	assert_last(&s, 0, 0);
	assert_true(read_matches(&s, straight, 2 * PAGE));
	assert_last(&s, 0, 2 * PAGE);
	assert_true(read_matches(&s, straight + 2 * PAGE, 2 * PAGE));
	assert_last(&s, 0, 0);
	assert_false(read_matches(&s, straight + PAGE, 2 * PAGE)); /* at 3 and at 0 */
	assert_false(read_matches(&s, straight, 4 * PAGE));
	assert_false(read_matches(&s, straight + 3 * PAGE, 2 * PAGE)); /* the end, and nobody's */
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_int_equal(abi_reg(&s, straight, HUGE, 0), 0);
	assert_true(read_matches(&s, straight + PAGE, 200 * PAGE));
	assert_last(&s, 0, PAGE);
	assert_false(read_matches(&s, mixed, 4 * PAGE));
	abi_del(&s);
	munmap(straight, HUGE);
	munmap(mixed, 4 * PAGE);
	close(fd);
	assert_nothing_pinned();
}

/* ---- numbers ---- */

static void sums_that_overflow_are_refused(void **state)
{
	static const struct {
		uint64_t addr, len;
		int result;
	} bad[] = {
		{ UINT64_MAX - PAGE + 1, PAGE, -EOVERFLOW }, /* ends at 0 */
		{ UINT64_MAX - PAGE + 1, 2 * PAGE, -EOVERFLOW },
		{ UINT64_MAX - PAGE + 1, UAPI_SHMEM_BUF_SIZE_MAX, -EOVERFLOW },
		{ 1ULL << 63, PAGE, -EFAULT }, /* not the user's */
		{ 1ULL << 56, PAGE, -EFAULT },
		{ (1ULL << 47) - PAGE, 2 * PAGE, -EFAULT }, /* the last page of all, and one more */
		{ UINT32_MAX - PAGE + 1, UAPI_SHMEM_BUF_SIZE_MAX, -EFAULT },
	};
	static const uint64_t too_long[] = { UINT64_MAX - PAGE + 1, 1ULL << 63,
					     UAPI_SHMEM_BUF_SIZE_MAX + PAGE };
	struct abi_server s;
	uint64_t p = (uintptr_t)shared_pages(1);

	(void)state;
	add_zc(&s);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(reg_raw(&s, bad[i].addr, bad[i].len, 0, 0), bad[i].result);
	for (size_t i = 0; i < sizeof(too_long) / sizeof(too_long[0]); i++)
		assert_int_equal(reg_raw(&s, p, too_long[i], 0, 0), -EINVAL);
	/* the length is right, but only the first page is there */
	assert_int_equal(reg_raw(&s, p, UAPI_SHMEM_BUF_SIZE_MAX, 0, 0), -EFAULT);
	assert_int_equal(abi_unreg(&s, 0), -ENOENT);
	abi_del(&s);
	munmap((void *)(uintptr_t)p, PAGE);
	assert_nothing_pinned();
}

/* What a command is too short to hold is zero, and what it has too much is nobody's. */
static void commands_may_be_short_or_long(void **state)
{
	struct abi_server s;
	uint64_t regs[8] = { (uintptr_t)shared_pages(2), PAGE, 2, 3, 4, 5, 6, 7 };

	(void)state;
	add_zc(&s);
#define REG(len) abi_command(&s, UBLK_U_CMD_REG_BUF, s.device, (uintptr_t)regs, len, 0)
	assert_int_equal(REG(0), -EINVAL);
	assert_int_equal(REG(8), -EINVAL);
	assert_int_equal(REG(24), -EINVAL); /* an unknown flag */
	assert_int_equal(REG(16), 0);
	regs[0] += PAGE;
	regs[2] = UAPI_SHMEM_BUF_READ_ONLY;
	assert_int_equal(REG(64), 1);
#undef REG
	abi_del(&s);
	munmap((void *)(uintptr_t)(regs[0] - PAGE), 2 * PAGE);
	assert_nothing_pinned();
}

static size_t bytes_available(void)
{
	FILE *f = fopen("/proc/meminfo", "r");
	char line[128];
	size_t kib = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %zu", &kib) == 1)
			break;
	fclose(f);
	return kib << 10;
}

static void the_longest_buffer_has_all_offsets(void **state)
{
	struct abi_server s;
	uint8_t *p;

	(void)state;
	if (bytes_available() < UAPI_SHMEM_BUF_SIZE_MAX + (512UL << 20)) {
		print_message("needs 4.5 GiB of memory (tests/vm/run --mem 6144)\n");
		skip();
	}
	p = shared_pages(UAPI_SHMEM_BUF_SIZE_MAX / PAGE);
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, UAPI_SHMEM_BUF_SIZE_MAX, 0), 0);
	assert_true(read_matches(&s, p + UAPI_SHMEM_BUF_SIZE_MAX - PAGE, PAGE));
	assert_last(&s, 0, UINT32_MAX - PAGE + 1);
	assert_true(read_matches(&s, p + (2UL << 30) - PAGE, 2 * PAGE));
	assert_last(&s, 0, (2UL << 30) - PAGE);
	assert_true(read_matches(&s, p + UAPI_SHMEM_BUF_SIZE_MAX - MIB, MIB));
	abi_del(&s);
	munmap(p, UAPI_SHMEM_BUF_SIZE_MAX);
	assert_nothing_pinned();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_of_two_owners_has_one_registration),
		cmocka_unit_test(segments_over_adjacent_buffers_are_copied),
		cmocka_unit_test(a_run_of_two_huge_pages_matches_anywhere),
		cmocka_unit_test(physical_order_is_not_the_buffers),
		cmocka_unit_test(sums_that_overflow_are_refused),
		cmocka_unit_test(commands_may_be_short_or_long),
		cmocka_unit_test(the_longest_buffer_has_all_offsets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
