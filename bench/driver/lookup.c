/* SPDX-License-Identifier: MIT */
/*
 * lookup.c - what finding a request's buffer costs, and what a registered run costs.
 *
 * The device has no storage and copies nothing: a write costs its round trip, and, if anything
 * is registered, the lookup.  So the ratio of the same writes with and without registrations is
 * the lookup's share.  The two take turns; medians of their ratios are printed, with quartiles.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/vm/abi/abi_helpers.h"

#define NR_SCATTERED 10000U /* pages, none of which follows its neighbour physically */
#define NR_BUFFERS 1000U
#define NR_MEMORY 65536U /* pages whose registration is weighed */
#define MIB (1UL << 20)
#define ROUNDS 5U
#define WRITES 300U

static struct abi_server server; /* never started: no freezing on the stock driver */
static uint8_t *scattered, *gathered;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print_median(const char *what, double ratios[ROUNDS])
{
	qsort(ratios, ROUNDS, sizeof(*ratios), compare);
	printf("%-58s %6.3f   (%.3f - %.3f)\n", what, ratios[ROUNDS / 2], ratios[ROUNDS / 4],
	       ratios[ROUNDS - 1 - ROUNDS / 4]);
}

static void must(int ret, const char *what)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "lookup: %s: %s\n", what, strerror(-ret));
	exit(1);
}

/* Memory touched back to front. */
static uint8_t *scattered_pages(size_t nr)
{
	uint8_t *p = shared_pages(nr);

	for (size_t i = nr; i--;)
		p[i * PAGE] = 1;
	return p;
}

/* ---- requests ---- */

struct load {
	const char *name;
	uint8_t *const *base;
	size_t bytes;	   /* of a request */
	size_t nr_places;  /* to which requests go at random, a page from one to the next */
	size_t reg_pages;  /* registered, in ... */
	size_t nr_buffers; /* ... so many buffers */
};

static double seconds_of(const struct load *l, const struct abi_server *s)
{
	unsigned int seed = 1;
	double began = now();

	for (unsigned int i = 0; i < WRITES; i++) {
		uint8_t *p = *l->base + (size_t)rand_r(&seed) % l->nr_places * PAGE;

		if (pwrite(s->disk_fd, p, l->bytes, ABI_TEST_OFFSET) != (ssize_t)l->bytes)
			must(-errno, "write");
	}
	return now() - began;
}

/* Two devices that differ in what is registered, before they are started. */
static void measure_load(const struct load *l)
{
	struct abi_server with, without;
	size_t bytes = l->reg_pages / l->nr_buffers * PAGE;
	double ratios[ROUNDS];

	add_zc(&with);
	add_zc(&without);
	for (unsigned int i = 0; i < l->nr_buffers; i++)
		must(abi_reg(&with, *l->base + i * bytes, bytes, 0), "register");
	abi_start(&with);
	abi_start(&without);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		double first = seconds_of(l, i % 2 ? &with : &without);
		double second = seconds_of(l, i % 2 ? &without : &with);

		ratios[i] = i % 2 ? first / second : second / first;
	}
	if (with.nr_matched != ROUNDS * WRITES || without.nr_matched)
		must(-EIO, "all must match on one device, and none on the other");
	print_median(l->name, ratios);
	fflush(stdout);
	abi_del(&with);
	abi_del(&without);
}

/* ---- memory ---- */

struct memory {
	double kib;   /* slabs, with what is free in them, vmalloc, per processor */
	double nodes; /* of trees, in use */
};

static struct memory kernel_memory(void)
{
	struct memory m = { 0 };
	char line[256];
	double number;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Slab: %lf", &number) == 1 ||
		    sscanf(line, "VmallocUsed: %lf", &number) == 1 ||
		    sscanf(line, "Percpu: %lf", &number) == 1)
			m.kib += number;
	if (f)
		fclose(f);
	f = fopen("/proc/slabinfo", "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "maple_node %lf", &number) == 1)
			m.nodes = number;
	if (f)
		fclose(f);
	return m;
}

/* In all, and what nodes of trees it has. */
static void weigh(const char *what, uint8_t *p)
{
	struct memory before, after;

	sleep(1);
	before = kernel_memory();
	must(abi_reg(&server, p, NR_MEMORY * PAGE, 0), "register");
	sleep(1); /* what waits for a grace period is gone */
	after = kernel_memory();
	must(abi_unreg(&server, 0), "unregister");
	printf("kernel memory for 65 536 pages, %-26s %6.1f bytes a page\n", what,
	       (after.kib - before.kib) * 1024 / NR_MEMORY);
	if (after.nodes != before.nodes)
		printf("  of that, nodes of trees in use %34.1f\n",
		       (after.nodes - before.nodes) * 256 / NR_MEMORY);
	fflush(stdout);
}

static void weigh_runs(void)
{
	uint8_t *reversed = scattered_pages(NR_MEMORY);
	uint8_t *sparse[2] = { shared_pages(NR_MEMORY), shared_pages(NR_MEMORY) };

	/* every other physical page, as far as the kernel gives them out in a row */
	for (size_t i = 0; i < 2 * NR_MEMORY; i++)
		sparse[i % 2][i / 2 * PAGE] = 1;
	weigh("dense, in reverse order:", reversed);
	weigh("every other page:", sparse[0]);
	munmap(reversed, NR_MEMORY * PAGE);
	munmap(sparse[0], NR_MEMORY * PAGE);
	munmap(sparse[1], NR_MEMORY * PAGE);
}

/* ---- unregistering ---- */

/* Of the buffer that is registered next. */
static double unregister_seconds(size_t first_page, size_t nr)
{
	int index = abi_reg(&server, scattered + first_page * PAGE, nr * PAGE, 0);
	double began = now();

	must(index, "register");
	must(abi_unreg(&server, (unsigned int)index), "unregister");
	return now() - began;
}

/* The kernel waits for a grace period, as unregistering has to. */
static double grace_period_seconds(void)
{
	double began = now();

	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		must(-errno, "membarrier");
	return now() - began;
}

static void measure_waiting(void)
{
	double ratios[ROUNDS];

	for (unsigned int i = 0; i < ROUNDS; i++) {
		double unregistering = 0, grace = 0;

		for (unsigned int j = 0; j < 20; j++) {
			unregistering += unregister_seconds(j * 100, 100);
			grace += grace_period_seconds();
		}
		ratios[i] = unregistering / grace;
	}
	print_median("unregister 100 runs / a grace period", ratios);
}

/* As ublkzc does when a client has gone: so many at a time. */
static void unregister_all(unsigned int nr, unsigned int at_a_time)
{
	unsigned int begun = 0, done = 0;
	struct io_uring_cqe *cqe;
	void *cookie;
	int res;

	while (done < nr) {
		for (; begun < nr && begun - done < at_a_time; begun++)
			must(ctrl_unreg_buf(&server.ctrl, server.device, begun, NULL), "submit");
		must(io_uring_wait_cqe(&server.ctrl.ring, &cqe), "wait");
		for (; ctrl_collect(&server.ctrl, &cookie, &res); done++)
			must(res, "unregister");
	}
}

static void measure_many(const char *what, unsigned int at_a_time)
{
	double ratios[ROUNDS];

	for (unsigned int i = 0; i < ROUNDS; i++) {
		double began, grace = 0;

		for (unsigned int j = 0; j < 100; j++) {
			must(abi_reg(&server, scattered + (size_t)j * PAGE, PAGE, 0), "register");
			grace += grace_period_seconds();
		}
		began = now();
		unregister_all(100, at_a_time);
		ratios[i] = (now() - began) / grace;
	}
	print_median(what, ratios);
}

static void measure_unregistering(void)
{
	double beside[ROUNDS], longer[ROUNDS];

	for (unsigned int i = 0; i < ROUNDS; i++) {
		double alone = unregister_seconds(0, 100);

		longer[i] = unregister_seconds(0, 9900) / alone;
		must(abi_reg(&server, scattered + 100 * PAGE, 9900 * PAGE, 0), "register");
		beside[i] = unregister_seconds(0, 100) / alone;
		must(abi_unreg(&server, 0), "unregister");
	}
	print_median("unregister 100 runs, 9 900 others there / none there", beside);
	print_median("unregister 9 900 runs / 100 runs", longer);
}

/* With an argument only what unregistering waits for is measured. */
int main(int argc, char **argv)
{
	cpu_set_t first;
	const struct load loads[] = {
		{ "4 KiB writes, 1 run registered / nothing", &scattered, PAGE, 1, 1, 1 },
		{ "4 KiB writes, in 10 000 runs / nothing", &scattered, PAGE, NR_SCATTERED,
		  NR_SCATTERED, 1 },
		{ "4 KiB writes, in 1 000 buffers / nothing", &scattered, PAGE, NR_BUFFERS,
		  NR_BUFFERS, NR_BUFFERS },
		{ "1 MiB writes, gathered / nothing", &gathered, MIB, 1, MIB / PAGE, 1 },
		{ "1 MiB writes, each of 256 runs of 10 000 / nothing", &scattered, MIB,
		  NR_SCATTERED - MIB / PAGE, NR_SCATTERED, 1 },
	};

	/* client and servers on one processor: who wakes whom, and where, is not measured */
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first))
		must(-errno, "sched_setaffinity");
	gathered = map_huge_page(memory_file(HUGE, 0));
	if (!gathered)
		must(-ENOMEM, "no huge page of shared memory");
	scattered = scattered_pages(NR_SCATTERED);
	add_zc(&server);
	measure_waiting();
	measure_many("unregister 100 buffers / 100 grace periods", 1);
	measure_many("unregister 100 buffers, 16 at a time / 100 grace periods", 16);
	if (argc > 1) {
		abi_del(&server);
		return strcmp(argv[1], "unregister") != 0;
	}
	measure_unregistering();
	weigh_runs();
	abi_del(&server);
	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
		measure_load(&loads[i]);
	return 0;
}
