/* SPDX-License-Identifier: MIT */
/* unregister_test.c - what unregistering a buffer costs: one grace period, and no page's cleanness. */
#include <fcntl.h>
#include <linux/membarrier.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define NR_ROUNDS 15
#define NR_TRIES 8

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The kernel waits for a grace period, and does nothing else. */
static double grace_period_seconds(void)
{
	double since = now();

	assert_int_equal(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0), 0);
	return now() - since;
}

static double unregistering_seconds(struct abi_server *s, uint8_t *p)
{
	double since;

	assert_int_equal(abi_reg(s, p, PAGE, 0), 0);
	since = now();
	assert_int_equal(abi_unreg(s, 0), 0);
	return now() - since;
}

static double grace_periods_each(struct abi_server *s, uint8_t *p)
{
	double unregistering = 0, grace = 0;

	for (int i = 0; i < NR_ROUNDS; i++) {
		unregistering += unregistering_seconds(s, p);
		grace += grace_period_seconds();
	}
	return unregistering / grace;
}

/* Two were waited for once. The least of some tries, as the machine may be busy with other things. */
static void unregistering_waits_for_one_grace_period(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(1);
	double least = 100;

	(void)state;
	if (!is_ours()) {
		print_message("the stock driver freezes the queue\n");
		skip();
	}
	if (sysconf(_SC_NPROCESSORS_ONLN) == 1) {
		print_message("one processor: membarrier() waits for nothing\n");
		skip();
	}
	add_zc(&s);
	for (int i = 0; i < NR_TRIES && least > 1.5; i++) {
		double each = grace_periods_each(&s, p);

		least = each < least ? each : least;
	}
	print_message("unregistering took %.2f grace periods\n", least);
	assert_true(least < 1.7);
	abi_del(&s);
	munmap(p, PAGE);
	assert_nothing_pinned();
}

static bool is_dirty(const void *page)
{
	uint64_t flags = 0;
	int fd = open("/proc/kpageflags", O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &flags, 8, (off_t)(frame_of(page) * 8)), 8);
	close(fd);
	return flags >> 4 & 1; /* KPF_DIRTY */
}

/* The driver does not write, so no file is written back because of it. */
static void what_was_clean_stays_clean(void **state)
{
	struct abi_server s;
	char name[256], text[PAGE] = "clean";
	const char *disk = getenv("ABI_DISK"); /* a folder of a disk file system */
	uint8_t *p;
	int fd;

	(void)state;
	assert_non_null(disk);
	snprintf(name, sizeof(name), "%s/abi-test-XXXXXX", disk);
	fd = mkstemp(name);
	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(write(fd, text, sizeof(text)), sizeof(text));
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(p != MAP_FAILED);
	assert_int_equal(*p, 'c');
	assert_true(is_dirty(p)); /* or this test sees nothing */
	assert_int_equal(fsync(fd), 0);
	assert_false(is_dirty(p));
	add_zc(&s);
	assert_int_equal(abi_reg(&s, p, PAGE, UAPI_SHMEM_BUF_READ_ONLY), 0);
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_nothing_pinned();
	assert_false(is_dirty(p));
	abi_del(&s);
	munmap(p, PAGE);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unregistering_waits_for_one_grace_period),
		cmocka_unit_test(what_was_clean_stays_clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
