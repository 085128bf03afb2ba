/* SPDX-License-Identifier: MIT */
/*
 * foreign_stress.c [SECONDS [REQUESTS]] - processes do direct I/O while they discard, unmap, move,
 * protect and fork that memory, have it swapped out, made huge and moved to other nodes, and are
 * killed; the server takes it in place all the time, and lets go.  Every byte is checked: by the
 * processes, and by their children, which see what was theirs.
 *
 * With REQUESTS it goes on until there have been so many, and everything must have happened: so it
 * needs swap, huge pages and two nodes (93-driver-stress.sh sees to that in tests/full).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "foreign.h"

#define NR_PROCESSES 3U
#define NR_THREADS 2U
#define SLOT (16UL << 10)
#define NR_SLOTS 32U
#define AREA (SLOT * NR_SLOTS)
#define NR_BUFS 48U

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* What happens to memory; but for protect all of it ends what is registered there. */
enum event { DISCARD, UNMAP, MOVE, RENEW, PROTECT, FORK, SWAP_OUT, COLLAPSE, MIGRATE, NR_EVENTS };
static const char *const event_names[] = { "discarded",	  "unmapped",  "moved",
					   "renewed",	  "protected", "forked",
					   "swapped out", "made huge", "to another node" };

/* Of one thread of a process, in memory that the server sees. */
struct worker {
	uint8_t *_Atomic mem; /* NULL: there is none now */
	atomic_ulong nr_requests, nr_events[NR_EVENTS];
};

struct process {
	pid_t pid;
	struct worker workers[NR_THREADS];
};

static struct {
	struct abi_server s;
	struct process processes[NR_PROCESSES];
	atomic_bool wrong;
	uint8_t stored[NR_PROCESSES * NR_THREADS * AREA];
} * shared;

static uint8_t *maps[NR_BUFS];
static atomic_ulong nr_in_place, nr_copied;

/* ---- a thread of a process ---- */

struct area {
	struct worker *w;
	unsigned int seed;
	int disk;
	off_t at;     /* on the disk */
	uint8_t *mem; /* at the beginning of what could be a huge page */
	uint8_t in_mem[NR_SLOTS], on_disk[NR_SLOTS]; /* what each slot is full of */
};

static unsigned int pick(struct area *a, unsigned int n)
{
	a->seed = a->seed * 1664525 + 1013904223;
	return (a->seed >> 8) % n;
}

__attribute__((noreturn)) static void wrong(const char *what, unsigned int slot)
{
	fprintf(stderr, "wrong: %s, slot %u, errno %d\n", what, slot, errno);
	shared->wrong = true;
	_exit(1);
}

static void check(const struct area *a, unsigned int slot, const char *what)
{
	const uint8_t *mem = a->mem + slot * SLOT;

	if (mem[0] != a->in_mem[slot] || memcmp(mem, mem + 1, SLOT - 1) != 0) {
		fprintf(stderr, "%#x in place of %#x\n", mem[0], a->in_mem[slot]);
		wrong(what, slot);
	}
}

static void fill(struct area *a, unsigned int slot)
{
	a->in_mem[slot] = (uint8_t)pick(a, 256);
	memset(a->mem + slot * SLOT, a->in_mem[slot], SLOT);
}

static void read_slot(struct area *a, unsigned int slot, unsigned int from)
{
	if (pread(a->disk, a->mem + slot * SLOT, SLOT, a->at + (off_t)(from * SLOT)) != SLOT)
		wrong("read", slot);
	a->in_mem[slot] = a->on_disk[from];
	a->w->nr_requests++;
	check(a, slot, "what was read");
}

static void write_slot(struct area *a, unsigned int slot, unsigned int to)
{
	check(a, slot, "what is written");
	if (pwrite(a->disk, a->mem + slot * SLOT, SLOT, a->at + (off_t)(to * SLOT)) != SLOT)
		wrong("write", slot);
	a->on_disk[to] = a->in_mem[slot];
	a->w->nr_requests++;
}

/* 0, or the kernel cannot do that here. */
static void note(struct area *a, enum event event, long failed)
{
	if (!failed)
		a->w->nr_events[event]++;
}

static void lose_slot(struct area *a, unsigned int slot, bool unmap)
{
	uint8_t *mem = a->mem + slot * SLOT;

	if (unmap)
		mem = mmap(mem, SLOT, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	else if (madvise(mem, SLOT, MADV_DONTNEED))
		wrong("discard", slot);
	if (mem == MAP_FAILED)
		wrong("map", slot);
	a->in_mem[slot] = 0;
	note(a, unmap ? UNMAP : DISCARD, 0);
}

/* The child has what was there, and makes a mess of it that nobody else sees. */
static void fork_child(struct area *a)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return;
	if (pid == 0) {
		for (unsigned int slot = 0; slot < NR_SLOTS; slot++)
			check(a, slot, "a child's");
		for (unsigned int slot = 0; slot < NR_SLOTS; slot++)
			fill(a, slot);
		for (unsigned int slot = 0; slot < NR_SLOTS; slot++)
			check(a, slot, "a child's own");
		_exit(0);
	}
	note(a, FORK, 0);
	/* while it lives */
	for (int i = 0; i < 8; i++)
		read_slot(a, pick(a, NR_SLOTS), pick(a, NR_SLOTS));
	for (int i = 0; i < 8; i++)
		fill(a, pick(a, NR_SLOTS));
	if (waitpid(pid, &status, 0) != pid || status)
		wrong("a child", 0);
}

static uint8_t *huge_hole(int prot)
{
	uint8_t *p = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *hole = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));

	if (p == MAP_FAILED || mprotect(hole, HUGE, prot))
		wrong("hole", 0);
	munmap(p, (size_t)(hole - p));
	munmap(hole + HUGE, (size_t)(p + HUGE - hole));
	return hole;
}

static void map_area(struct area *a)
{
	a->mem = huge_hole(PROT_READ | PROT_WRITE);
	memset(a->in_mem, 0, sizeof(a->in_mem));
	for (unsigned int slot = 0; slot < NR_SLOTS; slot++)
		fill(a, slot);
	a->w->mem = a->mem;
}

/* Slots are mappings of their own by now, and move each for itself. */
static void move_area(struct area *a)
{
	uint8_t *hole = huge_hole(PROT_READ | PROT_WRITE);

	for (unsigned int slot = 0; slot < NR_SLOTS; slot++)
		if (mremap(a->mem + slot * SLOT, SLOT, SLOT, MREMAP_MAYMOVE | MREMAP_FIXED,
			   hole + slot * SLOT) == MAP_FAILED)
			wrong("move", slot);
	munmap(a->mem, HUGE);
	a->mem = hole;
	a->w->mem = hole;
	note(a, MOVE, 0);
}

static void renew_area(struct area *a)
{
	a->w->mem = NULL;
	munmap(a->mem, HUGE);
	map_area(a);
	note(a, RENEW, 0);
}

/* To either of two nodes, by turns. */
static void migrate(struct area *a)
{
	unsigned long node = 1UL << pick(a, 2);

	note(a, MIGRATE,
	     syscall(SYS_mbind, a->mem, HUGE, MPOL_PREFERRED, &node, 8UL, MPOL_MF_MOVE));
}

static void protect(struct area *a)
{
	if (mprotect(a->mem, AREA, PROT_READ) || mprotect(a->mem, AREA, PROT_READ | PROT_WRITE))
		wrong("protect", 0);
	note(a, PROTECT, 0);
}

static void happen(struct area *a, unsigned int slot)
{
	switch (pick(a, NR_EVENTS)) {
	case DISCARD:
		return lose_slot(a, slot, false);
	case UNMAP:
		return lose_slot(a, slot, true);
	case MOVE:
		return move_area(a);
	case RENEW:
		return renew_area(a);
	case PROTECT:
		return protect(a);
	case FORK:
		return fork_child(a);
	case SWAP_OUT:
		return note(a, SWAP_OUT, madvise(a->mem + slot * SLOT, SLOT, MADV_PAGEOUT));
	case COLLAPSE:
		return note(a, COLLAPSE, madvise(a->mem, HUGE, MADV_COLLAPSE));
	default:
		migrate(a);
	}
}

static void do_something(struct area *a)
{
	unsigned int slot = pick(a, NR_SLOTS), what = pick(a, 1000);

	if (what < 450)
		read_slot(a, slot, pick(a, NR_SLOTS));
	else if (what < 850)
		write_slot(a, slot, pick(a, NR_SLOTS));
	else if (what < 940)
		fill(a, slot);
	else if (what < 990)
		check(a, slot, "memory");
	else if (what < 994)
		happen(a, slot);
}

struct start {
	struct worker *w;
	unsigned int number, seed;
};

static void *work(void *arg)
{
	struct start *start = arg;
	struct area *a = calloc(1, sizeof(*a));
	char path[32];

	a->w = start->w;
	a->seed = start->seed;
	a->at = (off_t)(ABI_TEST_OFFSET + start->number * AREA);
	snprintf(path, sizeof(path), "/dev/ublkb%u", shared->s.device);
	a->disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (a->disk < 0)
		wrong("open", 0);
	map_area(a);
	for (unsigned int slot = 0; slot < NR_SLOTS; slot++)
		write_slot(a, slot, slot);
	for (;;)
		do_something(a);
	return NULL;
}

static void start_process(unsigned int number, unsigned int seed)
{
	struct process *p = &shared->processes[number];
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid) {
		p->pid = pid;
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int i = 0; i < NR_THREADS; i++) {
		struct start *start = malloc(sizeof(*start));
		pthread_t thread;

		*start = (struct start){ &p->workers[i], number * NR_THREADS + i,
					 seed * 1000 + number * 10 + i };
		pthread_create(&thread, NULL, work, start);
	}
	for (;;)
		pause();
}

static void end_process(unsigned int number)
{
	struct process *p = &shared->processes[number];

	kill(p->pid, SIGKILL);
	assert_int_equal(waitpid(p->pid, NULL, 0), p->pid);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		p->workers[i].mem = NULL;
}

/* ---- the server ---- */

static int serve_any(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	uint64_t offset = (iod->start_sector << 9) - ABI_TEST_OFFSET;
	uint32_t bytes = iod->nr_sectors << 9;
	bool reads = ublksrv_get_op(iod) == UBLK_IO_OP_READ;
	uint8_t *at = shared->stored + offset;

	if (offset + bytes > sizeof(shared->stored)) /* udev looks for a file system */
		at = shared->stored;
	if (iod->op_flags & UAPI_IO_F_SHMEM_ZC) {
		uint8_t *mem = maps[uapi_shmem_index(iod->addr)] + uapi_shmem_offset(iod->addr);

		memcpy(reads ? mem : at, reads ? at : mem, bytes);
		nr_in_place++;
	} else {
		if (reads)
			abi_give(s, tag, at, bytes);
		else
			abi_take(s, tag, at, bytes);
		nr_copied++;
	}
	return (int)bytes;
}

/* Some slots of a thread's memory, if they are there and its own alone. */
static int take_some(unsigned int *seed)
{
	struct process *p = &shared->processes[rand_r(seed) % NR_PROCESSES];
	uint8_t *mem = p->workers[rand_r(seed) % NR_THREADS].mem;
	struct uapi_shmem_foreign_reg reg = { .pid = (uint32_t)p->pid, .event_fd = -1 };
	unsigned int slot = (unsigned int)rand_r(seed) % NR_SLOTS;
	unsigned int nr = 1 + (unsigned int)rand_r(seed) % (NR_SLOTS - slot);

	if (!mem)
		return -EAGAIN;
	reg.addr = (uintptr_t)mem + slot * SLOT;
	reg.len = (nr > 6 ? 6 : nr) * SLOT;
	return abi_command(&shared->s, UAPI_CMD_REG_FOREIGN, shared->s.device, (uintptr_t)&reg,
			   sizeof(reg), 0);
}

/* All at a time: each waits for a grace period. */
static void unregister(const unsigned int *indexes, unsigned int nr)
{
	struct ctrl *c = &shared->s.ctrl;
	struct pollfd done = { .fd = ctrl_fd(c), .events = POLLIN };
	void *cookie;
	int res;

	for (unsigned int i = 0; i < nr; i++)
		assert_int_equal(ctrl_unreg_buf(c, shared->s.device, indexes[i], NULL), 0);
	while (nr) {
		if (!ctrl_has_early(c))
			poll(&done, 1, -1);
		for (; ctrl_collect(c, &cookie, &res); nr--)
			assert_int_equal(res, 0);
	}
}

/* Those that have ended; now and then another one. Returns how many there are. */
static int give_back(unsigned int *seed, unsigned long *nr_ended)
{
	struct uapi_shmem_buf_info infos[NR_BUFS + 8];
	unsigned int indexes[NR_BUFS + 8], nr_back = 0;
	int nr = abi_command(&shared->s, UAPI_CMD_LIST_BUFS, shared->s.device, (uintptr_t)infos,
			     sizeof(infos), 0);

	assert_true(nr >= 0);
	for (int i = 0; i < nr; i++) {
		bool ended = infos[i].flags & UAPI_SHMEM_BUF_ENDED;

		if (!ended && rand_r(seed) % 500)
			continue;
		indexes[nr_back++] = infos[i].index;
		*nr_ended += ended;
	}
	unregister(indexes, nr_back);
	return nr - (int)nr_back;
}

static void compact(void)
{
	int fd = open("/proc/sys/vm/compact_memory", O_WRONLY);

	if (fd < 0)
		return;
	(void)!write(fd, "1", 1);
	close(fd);
}

static unsigned int seconds = 8;
static unsigned long requests; /* at least, and everything must happen */

static unsigned long nr_requests(void)
{
	unsigned long nr = 0;

	for (unsigned int i = 0; i < NR_PROCESSES * NR_THREADS; i++)
		nr += shared->processes[i / NR_THREADS].workers[i % NR_THREADS].nr_requests;
	return nr;
}

static void start_all(unsigned int seed)
{
	shared = shared_pages((sizeof(*shared) + PAGE - 1) / PAGE);
	add_with(&shared->s, FOREIGN_FLAGS);
	shared->s.handler = serve_any;
	abi_start(&shared->s);
	for (unsigned int i = 0; i < NR_BUFS; i++) {
		maps[i] = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_SHARED, shared->s.char_fd,
			       (off_t)(UAPI_FOREIGN_OFFSET + ((uint64_t)i << 32)));
		assert_true(maps[i] != MAP_FAILED);
	}
	for (unsigned int i = 0; i < NR_PROCESSES; i++)
		start_process(i, seed);
}

static void check_events(void)
{
	for (unsigned int e = 0; e < NR_EVENTS; e++) {
		unsigned long nr = 0;

		for (unsigned int i = 0; i < NR_PROCESSES * NR_THREADS; i++)
			nr += shared->processes[i / NR_THREADS]
				      .workers[i % NR_THREADS]
				      .nr_events[e];
		print_message("  memory %s: %lu times\n", event_names[e], nr);
		assert_true(nr || !requests);
	}
}

static void every_byte_is_right(void **state)
{
	unsigned int seed = (unsigned int)time(NULL), round = 0;
	unsigned long nr_taken = 0, nr_ended = 0;
	time_t end;
	int nr = 0;

	(void)state;
	requires_foreign();
	print_message("seed %u\n", seed);
	start_all(seed);
	/* longer on a machine where nothing has happened yet */
	for (end = time(NULL) + seconds; (time(NULL) < end || nr_requests() < requests ||
					  (!(nr_ended && nr_in_place) && time(NULL) < end + 60)) &&
					 !shared->wrong;
	     round++) {
		nr = give_back(&seed, &nr_ended);
		for (int i = 0; i < 8 && nr < (int)NR_BUFS; i++)
			if (take_some(&seed) >= 0) {
				nr_taken++;
				nr++;
			}
		if (round % 512 == 511) {
			end_process(round / 512 % NR_PROCESSES);
			start_process(round / 512 % NR_PROCESSES, seed + round);
		}
		if (round % 1024 == 100)
			compact();
	}
	for (unsigned int i = 0; i < NR_PROCESSES; i++)
		end_process(i);
	assert_false(shared->wrong);
	print_message("%lu requests, %lu in place, %lu copied; %lu times taken, %lu ended\n",
		      nr_requests(), nr_in_place, nr_copied, nr_taken, nr_ended);
	check_events();
	assert_true(nr_in_place && nr_copied && nr_ended);
	for (unsigned int i = 0; i < NR_BUFS; i++)
		munmap(maps[i], AREA);
	abi_del(&shared->s);
	assert_nothing_pinned();
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_is_right),
	};

	if (argc > 1)
		seconds = (unsigned int)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		requests = strtoul(argv[2], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
