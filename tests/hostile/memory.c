/* SPDX-License-Identifier: MIT */
/*
 * memory.c - what a program holds, beside what it asked for.
 *
 * Resident memory as the process sees it; what the server and the kernel hold
 * in its name is asked of cgroups, by tests/vm/scenarios/76-hostile.sh.
 */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "hostile.h"

#define MIB (1UL << 20)
#define SLACK (16 * 1024UL) /* KiB */

static unsigned long resident(void)
{
	return proc_kib("/proc/self/smaps_rollup", "Rss");
}

/* Direct I/O first, if there is a disk for it: then others may take an interest. */
static void do_some_io(unsigned char *buf)
{
	int fd = open_direct();

	CHECK(pread(fd, buf, 65536, 0) == 65536);
	usleep(500000);
	CHECK(pread(fd, buf, 65536, 0) == 65536);
}

static void sparse_mapping(void)
{
	unsigned long before = resident();
	unsigned char *map =
		mmap(NULL, 512 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(map != MAP_FAILED);
	map[0] = 1;
	do_some_io(map);
	CHECK(resident() <= before + SLACK);
}

/* Pages that exist, whoever touched them. */
static size_t existing_pages(unsigned char *map, size_t len)
{
	unsigned char *there = calloc(1, len / 4096);
	size_t nr = 0;

	CHECK(there && mincore(map, len, there) == 0);
	for (size_t i = 0; i < len / 4096; i++)
		nr += there[i] & 1;
	free(there);
	return nr;
}

static void sparse_shared_mapping(void)
{
	unsigned char *map = mmap(NULL, 1536 * MIB, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(map != MAP_FAILED);
	map[0] = 1;
	do_some_io(map);
	usleep((unsigned int)(4e6 * patience()));
	CHECK(existing_pages(map, 1536 * MIB) <= 4096); /* 16 MiB: there may be huge pages */
}

static void sparse_block(void)
{
	unsigned long before = resident();
	void *p;

	CHECK(posix_memalign(&p, 4096, 512 * MIB) == 0);
	do_some_io(p);
	CHECK(resident() <= before + SLACK);
}

static void touched_blocks(void)
{
	unsigned long before = resident();
	unsigned char *first = aligned(65536, 1);

	do_some_io(first);
	for (int i = 0; i < 120; i++)
		aligned(MIB, 1);
	CHECK(resident() <= before + 132 * 1024 + SLACK);
}

static void small_blocks(void)
{
	unsigned long before = resident(), used;
	void *p;

	for (int i = 0; i < 100000; i++) {
		CHECK(posix_memalign(&p, 512, 512) == 0);
		memset(p, 1, 512);
	}
	used = resident() - before;
	/* Without us each takes 1040 bytes at most. */
	CHECK(used <= 100000 * 1040UL / 1024 * 3 / 2 + SLACK);
}

/* What is freed can be used for something else. */
static void freed_blocks(void)
{
	unsigned long before = resident();

	for (int round = 0; round < 8; round++) {
		unsigned char *blocks[64];

		for (int i = 0; i < 64; i++)
			blocks[i] = aligned(MIB + (unsigned int)round * 12288, 1);
		for (int i = 0; i < 64; i++)
			free(blocks[i]);
	}
	CHECK(resident() <= before + 96 * 1024 + SLACK);
}

static void many_mappings(void)
{
	unsigned int fds = nr_descriptors();
	unsigned char *maps[200];

	for (int i = 0; i < 200; i++) {
		maps[i] =
			mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(maps[i] != MAP_FAILED);
		maps[i][0] = 1;
	}
	CHECK(nr_descriptors() <= fds + 40);
	for (int i = 0; i < 200; i++)
		CHECK(munmap(maps[i], MIB) == 0);
	CHECK(nr_descriptors() <= fds + 40);
}

/* ---- sizes and limits ---- */

static void huge_aligned(void)
{
	static const size_t aligns[] = { 4096, 65536, MIB, 2 * MIB, 4 * MIB };

	for (int i = 0; i < 5; i++)
		for (int k = -1; k <= 1; k++) {
			size_t len = (4096UL + (unsigned long)k) * MIB - 4096;
			unsigned char *p;
			void *got;

			CHECK(posix_memalign(&got, aligns[i], len) == 0);
			p = got;
			CHECK((size_t)p % aligns[i] == 0);
			p[0] = p[len - 1] = 1;
			free(p);
		}
}

static atomic_bool done;

static void *keep_allocating(void *arg)
{
	for (unsigned int i = 0; !done; i++) {
		unsigned char *p = aligned(4096UL * (1 + i * 7919 % 512), 1);

		free(p);
	}
	return arg;
}

static void limit_while_allocating(void)
{
	const struct rlimit limit = { 200UL << 30, RLIM_INFINITY };
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, keep_allocating, NULL) == 0);
	for (int i = 0; i < 200; i++) {
		CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
		usleep(2000);
	}
	done = true;
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

/* Ordinary memory, at whatever addresses are free. */
static void *keep_mapping(void *arg)
{
	while (!done) {
		void *p = malloc(4 * MIB);

		CHECK(p);
		memset(p, 1, 4096);
		free(p);
	}
	return arg;
}

/* What is free from now on is nobody's but the next mapping's. */
static void limit_while_mapping(void)
{
	for (int i = 0; i < 20; i++) {
		const struct rlimit limit = { 200UL << 30, RLIM_INFINITY };
		pthread_t threads[2];
		pid_t pid = child();

		if (pid) {
			expect_well(pid);
			continue;
		}
		CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20));
		aligned(65536, 1);
		for (int k = 0; k < 2; k++)
			CHECK(pthread_create(&threads[k], NULL, keep_mapping, NULL) == 0);
		usleep(1000);
		CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
		usleep(5000);
		done = true;
		for (int k = 0; k < 2; k++)
			pthread_join(threads[k], NULL);
		_exit(0);
	}
}

/* A limit of addresses is what the program needs, and no more. */
static void limited_addresses(void)
{
	struct rlimit limit = { 0, RLIM_INFINITY };

	aligned(65536, 1);
	limit.rlim_cur = 700 * MIB;
	CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
	for (int i = 0; i < 200; i++)
		aligned(MIB, 1);
}

/* Either side writes to all of it, and sees its own. */
static void fork_with(unsigned char *block, unsigned char *map, size_t len)
{
	pid_t pid = child();

	if (!pid) {
		memset(block, 2, len);
		memset(map, 2, len);
		_exit(block[len - 1] == 2 && map[len - 1] == 2 ? 0 : 1);
	}
	expect_well(pid);
	CHECK(all_are(block, len, 1) && all_are(map, len, 1));
}

/* What is there before the limit stays, and what comes then is within it. */
static void limited_data(void)
{
	const struct rlimit limit = { 48 * MIB, RLIM_INFINITY };
	unsigned char *block = aligned(40 * MIB, 1), *map = mapped(40 * MIB, 1);
	size_t more = 0;

	fork_with(block, map, 40 * MIB);
	CHECK(setrlimit(RLIMIT_DATA, &limit) == 0);
	fork_with(block, map, 40 * MIB);
	free(block);
	CHECK(munmap(map, 40 * MIB) == 0);
	for (unsigned char *p; more < 100; more++) {
		p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			break;
		p[0] = 1;
	}
	CHECK(more < 50);
}

/* ---- a machine that promises no more than it has ---- */

static char *commit_block(size_t len)
{
	void *p = NULL;

	return posix_memalign(&p, 4096, len) ? NULL : p;
}

static char *commit_mapping(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* What was granted is there when it is touched; what is not, is said when it is asked for. */
static void promised_memory(void)
{
	char *(*const takes[])(size_t) = { commit_block, commit_mapping };
	int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY);
	char mode = 0;

	if (fd < 0 || read(fd, &mode, 1) != 1 || mode != '2')
		skip("vm.overcommit_memory is not 2");
	close(fd);
	for (int way = 0; way < 2; way++) {
		char *granted[256];
		int nr = 0;

		while (nr < 256 && (granted[nr] = takes[way](8 * MIB)))
			nr++;
		CHECK(nr < 256); /* it has less than 2 GiB */
		for (int i = 0; i < nr; i++)
			for (size_t at = 0; at < 8 * MIB; at += 4096)
				granted[i][at] = 1;
		for (int i = 0; i < nr; i++)
			way ? (void)munmap(granted[i], 8 * MIB) : free(granted[i]);
	}
}

const struct attack memory_attacks[] = {
	{ "sparse-mapping", sparse_mapping, "what is not touched is not there" },
	{ "sparse-shared-mapping", sparse_shared_mapping, "likewise, of a shared mapping" },
	{ "sparse-block", sparse_block, "likewise, of a block" },
	{ "touched-blocks", touched_blocks, "120 MiB of blocks are 120 MiB" },
	{ "small-blocks", small_blocks, "512 bytes are not four times that" },
	{ "freed-blocks", freed_blocks, "freed memory serves again" },
	{ "many-mappings", many_mappings, "a mapping is no descriptor" },
	{ "huge-aligned", huge_aligned, "4 GiB and more, at any alignment" },
	{ "promised-memory", promised_memory, "what cannot be had is not granted" },
	{ "limit-while-allocating", limit_while_allocating, "setrlimit harms no other thread" },
	{ "limit-while-mapping", limit_while_mapping, "nor what it maps meanwhile" },
	{ "limited-addresses", limited_addresses, "and what fitted, fits" },
	{ "limited-data", limited_data, "and a child has its own where data is limited" },
	{ 0 },
};
