/* SPDX-License-Identifier: MIT */
/* forks.c - what fork leaves alone, what it leaves behind, and what children have. */
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hostile.h"

#define MIB (1UL << 20)

static struct timespec in_seconds(int s)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += s;
	return ts;
}

static void fork_once(void)
{
	pid_t pid = child();

	if (!pid)
		_exit(0);
	expect_well(pid);
}

/* ---- waiting for a word in memory ---- */

static atomic_bool asleep;

static void *wait_for_semaphore(void *arg)
{
	struct timespec limit = in_seconds(8);

	asleep = true;
	return (void *)(long)(sem_timedwait(arg, &limit) == 0);
}

static void wake_over_fork(sem_t *sem)
{
	pthread_t thread;
	void *woken;

	CHECK(sem_init(sem, 1, 0) == 0);
	CHECK(pthread_create(&thread, NULL, wait_for_semaphore, sem) == 0);
	while (!asleep)
		usleep(1000);
	usleep(100000); /* that it really sleeps */
	fork_once();
	CHECK(sem_post(sem) == 0);
	pthread_join(thread, &woken);
	CHECK(woken);
}

static void semaphore_over_fork(void)
{
	wake_over_fork((sem_t *)(void *)aligned(8192, 0));
}

static void semaphore_over_fork_mapped(void)
{
	wake_over_fork((sem_t *)(void *)mapped(2 * MIB, 0));
}

/* In shared memory it is for several processes. */
static void *wait_for_word(void *arg)
{
	struct timespec limit = { 8, 0 };
	uint32_t *word = arg;

	asleep = true;
	while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == 0)
		if (syscall(SYS_futex, word, FUTEX_WAIT, 0, &limit, NULL, 0) < 0 &&
		    errno == ETIMEDOUT)
			return NULL;
	return word;
}

static void futex_over_fork(void)
{
	uint32_t *word = (uint32_t *)(void *)aligned(4096, 0);
	pthread_t thread;
	void *woken;

	CHECK(pthread_create(&thread, NULL, wait_for_word, word) == 0);
	while (!asleep)
		usleep(1000);
	usleep(100000);
	fork_once();
	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
	pthread_join(thread, &woken);
	CHECK(woken);
}

/* ---- what is left behind ---- */

static void forks_leave_nothing(unsigned int forks, size_t len)
{
	unsigned char *block = aligned(len, 1);
	unsigned long size = 0, rss = 0;
	unsigned int fds = 0;

	for (unsigned int i = 0; i < forks; i++) {
		unsigned char *fresh = aligned(len, 2);
		pid_t pid = child();

		if (!pid)
			_exit(all_are(block, len, 1) && all_are(fresh, len, 2) ? 0 : 1);
		expect_well(pid);
		memset(block, 1, len);
		free(fresh);
		if (i == 20) {
			fds = nr_descriptors();
			size = proc_kib("/proc/self/status", "VmSize");
			rss = proc_kib("/proc/self/smaps_rollup", "Rss");
		}
	}
	CHECK(nr_descriptors() <= fds);
	CHECK(proc_kib("/proc/self/status", "VmSize") <= size + 16 * 1024);
	CHECK(proc_kib("/proc/self/smaps_rollup", "Rss") <= rss + 4 * 1024 + len / 1024 / 4);
}

static void a_thousand_forks(void)
{
	forks_leave_nothing(patience() < 1 ? 100 : 1000, 64 << 10);
}

static void forks_of_much(void)
{
	forks_leave_nothing(30, 100 * MIB);
}

/* After many forks memory is still what it was before: a child's writes are not seen. */
static void ten_thousand_forks(void)
{
	unsigned char *block[8];

	for (unsigned int i = 0; i < 8; i++)
		block[i] = aligned(16384, (unsigned char)i);
	for (unsigned int round = 0; round < 10000; round++) {
		unsigned int which = round % 8;
		pid_t pid;

		free(block[which]);
		block[which] = aligned(16384, (unsigned char)round);
		pid = child();
		if (!pid) {
			memset(block[which], ~round, 16384);
			_exit(0);
		}
		expect_well(pid);
		CHECK(all_are(block[which], 16384, (unsigned char)round));
	}
}

/* ---- children ---- */

static void live_on(unsigned char *block, unsigned char *map, unsigned char mine)
{
	for (int round = 0; round < 3; round++) {
		unsigned char *fresh = aligned(100000, mine);

		memset(block, mine, MIB);
		memset(map, mine, 2 * MIB);
		usleep(2000);
		CHECK(all_are(block, MIB, mine) && all_are(map, 2 * MIB, mine) &&
		      all_are(fresh, 100000, mine));
		free(fresh);
	}
	free(block);
	munmap(map, 2 * MIB);
	_exit(0);
}

static void children_live_on(void)
{
	unsigned char *block = aligned(MIB, 255), *map = mapped(2 * MIB, 255);
	pid_t pids[24];

	for (int i = 0; i < 24; i++) {
		pids[i] = child();
		if (!pids[i])
			live_on(block, map, (unsigned char)i);
	}
	for (int i = 0; i < 24; i++)
		expect_well(pids[i]);
	CHECK(all_are(block, MIB, 255) && all_are(map, 2 * MIB, 255));
}

/* Each has as many descriptors as the first child had: none of those before it. */
static void generations(int left, unsigned char *block)
{
	static unsigned int most;
	pid_t pid;

	if (!left)
		return;
	memset(block, left, MIB);
	pid = child();
	if (!pid) {
		unsigned char *fresh = aligned(MIB, 9);

		if (!most)
			most = nr_descriptors();
		CHECK(nr_descriptors() <= most);
		CHECK(all_are(block, MIB, (unsigned char)left));
		generations(left - 1, block);
		CHECK(all_are(fresh, MIB, 9));
		_exit(0);
	}
	memset(block, 100 + left, MIB);
	expect_well(pid);
	CHECK(all_are(block, MIB, (unsigned char)(100 + left)));
}

static void eight_generations(void)
{
	generations(8, aligned(MIB, 0));
}

static void *fork_in_thread(void *arg)
{
	unsigned char *block = aligned(MIB, 3);
	pid_t pid = child();

	(void)arg;
	if (!pid) {
		unsigned char *fresh = aligned(MIB, 5);

		CHECK(all_are(block, MIB, 3));
		memset(block, 4, MIB);
		CHECK(all_are(fresh, MIB, 5));
		free(block);
		free(fresh);
		_exit(0);
	}
	expect_well(pid);
	CHECK(all_are(block, MIB, 3));
	free(block);
	return NULL;
}

static void children_of_threads(void)
{
	for (int round = 0; round < 10 * patience(); round++) {
		pthread_t threads[8];

		for (int i = 0; i < 8; i++)
			CHECK(pthread_create(&threads[i], NULL, fork_in_thread, NULL) == 0);
		for (int i = 0; i < 8; i++)
			pthread_join(threads[i], NULL);
	}
}

/* Protected parts of blocks: read-only, and guards that nobody may touch. */
static void sealed_and_guarded(void)
{
	unsigned char *block = aligned(16 * 4096, 1);
	pid_t pid;

	CHECK(mprotect(block, 4096, PROT_NONE) == 0);
	CHECK(mprotect(block + 4096, 4096, PROT_READ) == 0);
	pid = child();
	if (!pid) {
		pid_t inner = child();

		if (!inner) {
			*(volatile unsigned char *)block = 1;
			_exit(0);
		}
		CHECK(waitpid(inner, &(int){ 0 }, 0) == inner);
		CHECK(all_are(block + 4096, 15 * 4096, 1));
		CHECK(mprotect(block, 4096, PROT_READ) == 0 && all_are(block, 4096, 1));
		_exit(0);
	}
	CHECK(mprotect(block + 4096, 4096, PROT_READ | PROT_WRITE) == 0);
	memset(block + 4096, 2, 15 * 4096);
	expect_well(pid);
	pid = child();
	if (!pid) {
		*(volatile unsigned char *)block = 1;
		_exit(0);
	}
	{
		int status;

		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	}
	CHECK(mprotect(block, 4096, PROT_READ | PROT_WRITE) == 0);
	CHECK(all_are(block, 4096, 1) && all_are(block + 4096, 15 * 4096, 2));
	free(block);
}

/* ---- attributes ---- */

static unsigned char *moved_elsewhere(unsigned char *map)
{
	unsigned char *to = mremap(map, 2 * MIB, 4 * MIB, MREMAP_MAYMOVE);

	CHECK(to != MAP_FAILED);
	return to;
}

static void mremap_keeps_wipeonfork(void)
{
	unsigned char *map = mapped(2 * MIB, 1);
	pid_t pid;

	CHECK(madvise(map, 2 * MIB, MADV_WIPEONFORK) == 0);
	map = moved_elsewhere(map);
	memset(map, 's', 4 * MIB);
	pid = child();
	if (!pid)
		_exit(all_are(map, 4 * MIB, 0) ? 0 : 1);
	expect_well(pid);
}

static void mremap_keeps_dontfork(void)
{
	unsigned char *map = mapped(2 * MIB, 1);
	unsigned char there;
	pid_t pid;

	CHECK(madvise(map, 2 * MIB, MADV_DONTFORK) == 0);
	map = moved_elsewhere(map);
	memset(map, 's', 4 * MIB);
	pid = child();
	if (!pid)
		_exit(mincore(map, 4096, &there) < 0 && errno == ENOMEM ? 0 : 1);
	expect_well(pid);
}

static void mremap_keeps_locked(void)
{
	unsigned char *map = mapped(2 * MIB, 1);
	unsigned long locked;

	if (mlock(map, 2 * MIB) != 0)
		skip("no memory may be locked");
	locked = proc_kib("/proc/self/status", "VmLck");
	map = moved_elsewhere(map);
	memset(map, 's', 4 * MIB);
	CHECK(proc_kib("/proc/self/status", "VmLck") == locked + 2 * 1024);
}

/* ---- mapped over ---- */

static void still_there_after_fork(unsigned char *map)
{
	pid_t pid;

	memset(map, 'n', 2 * MIB);
	pid = child();
	if (!pid) {
		CHECK(all_are(map, 2 * MIB, 'n'));
		_exit(0);
	}
	expect_well(pid);
	CHECK(all_are(map, 2 * MIB, 'n'));
	memset(map, 'm', 2 * MIB);
	pid = child();
	if (!pid)
		_exit(all_are(map, 2 * MIB, 'm') ? 0 : 1);
	expect_well(pid);
}

static void segment_over_mapping(void)
{
	int id = shmget(IPC_PRIVATE, 2 * MIB, 0600);
	unsigned char *map = mapped(2 * MIB, 'o');
	pid_t pid;

	CHECK(id >= 0);
	CHECK(shmat(id, map, SHM_REMAP) == map);
	shmctl(id, IPC_RMID, NULL);
	memset(map, 'n', 2 * MIB);
	pid = child();
	if (!pid) {
		memset(map, 'c', 2 * MIB); /* a segment is shared */
		_exit(0);
	}
	expect_well(pid);
	CHECK(all_are(map, 2 * MIB, 'c'));
	CHECK(shmdt(map) == 0);
}

static void raw_mapping_over_mapping(void)
{
	unsigned char *map = mapped(2 * MIB, 'o');
	long over = syscall(SYS_mmap, map, 2 * MIB, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	CHECK(over == (long)map);
	CHECK(all_are(map, 2 * MIB, 0));
	still_there_after_fork(map);
	CHECK(munmap(map, 2 * MIB) == 0);
}

static void raw_unmapped_mapping(void)
{
	unsigned char *map = mapped(2 * MIB, 'o');
	long over;

	CHECK(syscall(SYS_munmap, map, 2 * MIB) == 0);
	over = syscall(SYS_mmap, map, 2 * MIB, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(over == (long)map);
	still_there_after_fork(map);
	CHECK(munmap(map, 2 * MIB) == 0);
}

const struct attack fork_attacks[] = {
	{ "semaphore-over-fork", semaphore_over_fork, "who waits for a semaphore is woken" },
	{ "semaphore-over-fork-mapped", semaphore_over_fork_mapped, "likewise, in a mapping" },
	{ "futex-over-fork", futex_over_fork, "likewise, for a futex" },
	{ "a-thousand-forks", a_thousand_forks, "forks leave no descriptor and no addresses" },
	{ "forks-of-much", forks_of_much, "and no memory", true },
	{ "ten-thousand-forks", ten_thousand_forks, "children's writes are their own", true },
	{ "children-live-on", children_live_on, "children use what they inherited, and more" },
	{ "eight-generations", eight_generations, "so do theirs" },
	{ "children-of-threads", children_of_threads, "so do children of threads" },
	{ "sealed-and-guarded", sealed_and_guarded, "protected pages stay so in children" },
	{ "mremap-keeps-wipeonfork", mremap_keeps_wipeonfork, "a child does not see the secret" },
	{ "mremap-keeps-dontfork", mremap_keeps_dontfork, "a child does not have the mapping" },
	{ "mremap-keeps-locked", mremap_keeps_locked, "a locked mapping stays locked" },
	{ "segment-over-mapping", segment_over_mapping, "SHM_REMAP replaces a mapping" },
	{ "raw-mapping-over-mapping", raw_mapping_over_mapping, "so does mmap by system call" },
	{ "raw-unmapped-mapping", raw_unmapped_mapping, "munmap by system call unmaps" },
	{ 0 },
};
