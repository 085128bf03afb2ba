/* SPDX-License-Identifier: MIT */
/*
 * registration_faults.c - registering, unregistering and requests while allocations fail.
 *
 * The kernel's fault injection is told to fail only what ublk_drv asks for. Each round
 * lets some bytes pass and then fails once, a few times, or always: so that, over many
 * rounds, every allocation on the way has been the one that fails. Whatever happens,
 * registering says ENOMEM or succeeds, unregistering succeeds, no request matches
 * afterwards, and no page stays pinned. What the kernel itself finds wrong (KASAN,
 * kmemleak) is read by tests/vm/debug-kernel/run.
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
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define ROUNDS 1000U
#define MAX_PAGES 1024U
/* About what registering the most pages here asks for, so that some rounds see no fault. */
#define MAX_PASSED_BYTES (64U << 10)
#define MAX_PASSED_PAGES 16U
#define NR_LISTED 16U /* pieces of a request, each in a buffer of its own */

static const char *const injectors[] = { "failslab", "fail_page_alloc" };

static void set(const char *injector, const char *knob, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", injector, knob);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, value, strlen(value)) != (ssize_t)strlen(value))
		fail_msg("%s = %s: %s", path, value, strerror(errno));
	close(fd);
}

static void set_number(const char *knob, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	for (size_t i = 0; i < sizeof(injectors) / sizeof(*injectors); i++)
		set(injectors[i], knob, text);
}

/* What passes before something fails: failslab counts bytes, fail_page_alloc pages. */
static void set_space(long bytes, long pages)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", bytes);
	set("failslab", "space", text);
	snprintf(text, sizeof(text), "%ld", pages);
	set("fail_page_alloc", "space", text);
}

static unsigned long module_value(const char *file)
{
	char path[128];
	unsigned long value;
	char text[32];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/ublk_drv/%s", file);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	value = strtoul(text, NULL, 0); /* also what is over LONG_MAX, as on x86 */
	fclose(f);
	return value;
}

/* Only allocations with the driver on the stack fail, also those that may sleep. */
static int aim_at_the_driver(void **state)
{
	unsigned long text = module_value("sections/.text");
	char start[32], end[32];

	(void)state;
	assert_true(text);
	snprintf(start, sizeof(start), "0x%lx", text);
	snprintf(end, sizeof(end), "0x%lx", text + module_value("coresize"));
	for (size_t i = 0; i < sizeof(injectors) / sizeof(*injectors); i++) {
		set(injectors[i], "probability", "0");
		set(injectors[i], "verbose", "0");
		set(injectors[i], "interval", "1");
		set(injectors[i], "ignore-gfp-wait", "N");
		set(injectors[i], "require-start", start);
		set(injectors[i], "require-end", end);
		set(injectors[i], "stacktrace-depth", "32");
	}
	set("failslab", "cache-filter", "N");
	set("fail_page_alloc", "ignore-gfp-highmem", "N");
	set("fail_page_alloc", "min-order", "0");
	return 0;
}

static void faults_begin(unsigned int round)
{
	static const int times[] = { 1, 2, 5, -1 };

	set_space(random() % MAX_PASSED_BYTES, random() % MAX_PASSED_PAGES);
	set_number("times", times[round % 4]);
	set_number("probability", 100);
}

static void faults_end(void)
{
	set_number("probability", 0);
}

/* Populated out of order, so that hardly two neighbours are physically so: many runs. */
static uint8_t *scattered_pages(size_t nr)
{
	uint8_t *p = shared_pages(nr);

	for (size_t i = 0; i < nr; i++)
		p[(i * 389 % nr) * PAGE] = 1;
	return p;
}

static void registering_without_memory_fails_cleanly(void **state)
{
	unsigned int registered = 0, refused = 0;
	struct abi_server s;
	uint8_t *p = scattered_pages(MAX_PAGES);

	(void)state;
	add_zc(&s);
	abi_start(&s);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		size_t nr = 1 + (size_t)random() % MAX_PAGES;
		bool fresh = round % 8 == 7; /* pages that pinning has to make */
		uint8_t *buf = fresh ? shared_pages(nr) : p;
		int index;

		faults_begin(round);
		index = abi_reg(&s, buf, nr * PAGE, 0);
		if (index >= 0) {
			assert_int_equal(abi_unreg(&s, (unsigned int)index), 0);
			registered++;
		} else {
			assert_int_equal(index, -ENOMEM);
			refused++;
		}
		faults_end();
		assert_false(read_matches(&s, buf, PAGE));
		assert_false(read_matches(&s, buf + (nr - 1) * PAGE, PAGE));
		if (fresh)
			munmap(buf, nr * PAGE);
	}
	print_message("%u registered, %u refused for want of memory\n", registered, refused);
	assert_true(registered > ROUNDS / 20);
	assert_true(refused > ROUNDS / 20);
	/* and with memory everything is as ever */
	assert_true(abi_reg(&s, p, MAX_PAGES * PAGE, 0) >= 0);
	assert_true(read_matches(&s, p, PAGE));
	abi_del(&s);
	munmap(p, MAX_PAGES * PAGE);
	assert_nothing_pinned();
}

/* Registered with memory, unregistered without any: that must not fail, nor half happen. */
static void unregistering_needs_no_memory(void **state)
{
	struct abi_server s;
	uint8_t *p = scattered_pages(MAX_PAGES);

	(void)state;
	add_zc(&s);
	abi_start(&s);
	for (unsigned int round = 0; round < ROUNDS / 20; round++) {
		int index = abi_reg(&s, p, MAX_PAGES * PAGE, 0);

		assert_true(index >= 0);
		assert_true(read_matches(&s, p, PAGE));
		set_space(0, 0);
		set_number("times", -1);
		set_number("probability", 100);
		index = abi_unreg(&s, (unsigned int)index);
		faults_end();
		assert_int_equal(index, 0);
		for (size_t i = 0; i < MAX_PAGES; i += 32)
			assert_false(read_matches(&s, p + i * PAGE, PAGE));
	}
	abi_del(&s);
	munmap(p, MAX_PAGES * PAGE);
	assert_nothing_pinned();
}

/* What a scattered request needs to be listed was allocated with the device. */
static void a_list_needs_no_memory(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(NR_LISTED);
	struct iovec iov[NR_LISTED];

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	add_with(&s, ZC_FLAGS | UAPI_F_SHMEM_SEGS);
	abi_start(&s);
	for (unsigned int i = 0; i < NR_LISTED; i++) {
		assert_int_equal(abi_reg(&s, p + i * PAGE, PAGE, 0), i);
		iov[i] = (struct iovec){ p + (NR_LISTED - 1 - i) * PAGE, PAGE };
	}
	for (unsigned int round = 0; round < ROUNDS / 20; round++) {
		ssize_t n;

		set_space(0, 0);
		set_number("times", -1);
		set_number("probability", 100);
		n = preadv(s.disk_fd, iov, NR_LISTED, ABI_TEST_OFFSET);
		faults_end();
		assert_int_equal(n, NR_LISTED * PAGE);
	}
	assert_int_equal(s.nr_listed, ROUNDS / 20);
	assert_int_equal(s.nr_copied, 0);
	abi_del(&s);
	munmap(p, NR_LISTED * PAGE);
	assert_nothing_pinned();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registering_without_memory_fails_cleanly),
		cmocka_unit_test(unregistering_needs_no_memory),
		cmocka_unit_test(a_list_needs_no_memory),
	};

	srandom((unsigned int)getpid());
	return cmocka_run_group_tests(tests, aim_at_the_driver, NULL);
}
