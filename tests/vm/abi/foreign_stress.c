/* SPDX-License-Identifier: MIT */
/*
 * foreign_stress.c [SECONDS] - processes do direct I/O while they discard, unmap, move, protect
 * and fork that memory, and are killed; the server takes it in place all the time, and lets go.
 * Every byte is checked: by the processes, and by their children, which see what was theirs.
 */
#include <errno.h>
#include <fcntl.h>
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

/* Of one thread of a process, in memory that the server sees. */
struct worker {
	uint8_t *_Atomic mem; /* NULL: there is none now */
	atomic_ulong nr_requests, nr_forks, nr_lost;
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
	off_t at; /* on the disk */
	uint8_t *mem;
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
	a->w->nr_lost++;
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
	a->w->nr_forks++;
	/* while it lives */
	for (int i = 0; i < 8; i++)
		read_slot(a, pick(a, NR_SLOTS), pick(a, NR_SLOTS));
	for (int i = 0; i < 8; i++)
		fill(a, pick(a, NR_SLOTS));
	if (waitpid(pid, &status, 0) != pid || status)
		wrong("a child", 0);
}

static void map_area(struct area *a)
{
	a->mem = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (a->mem == MAP_FAILED)
		wrong("map", 0);
	memset(a->in_mem, 0, sizeof(a->in_mem));
	for (unsigned int slot = 0; slot < NR_SLOTS; slot++)
		fill(a, slot);
	a->w->mem = a->mem;
}

/* Slots are mappings of their own by now, and move each for itself. */
static void move_area(struct area *a)
{
	uint8_t *hole = mmap(NULL, AREA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (hole == MAP_FAILED)
		wrong("hole", 0);
	for (unsigned int slot = 0; slot < NR_SLOTS; slot++)
		if (mremap(a->mem + slot * SLOT, SLOT, SLOT, MREMAP_MAYMOVE | MREMAP_FIXED,
			   hole + slot * SLOT) == MAP_FAILED)
			wrong("move", slot);
	a->mem = hole;
	a->w->mem = hole;
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
	else if (what < 946)
		lose_slot(a, slot, what % 2);
	else if (what < 970)
		check(a, slot, "memory");
	else if (what < 980)
		move_area(a);
	else if (what < 990 && (mprotect(a->mem, AREA, PROT_READ) ||
				mprotect(a->mem, AREA, PROT_READ | PROT_WRITE)))
		wrong("protect", 0);
	else if (what < 991)
		fork_child(a);
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

/* Those that have ended; now and then another one. Returns how many there are. */
static int give_back(unsigned int *seed, unsigned long *nr_ended)
{
	struct uapi_shmem_buf_info infos[NR_BUFS + 8];
	int nr = abi_command(&shared->s, UAPI_CMD_LIST_BUFS, shared->s.device, (uintptr_t)infos,
			     sizeof(infos), 0);
	int left = nr;

	assert_true(nr >= 0);
	for (int i = 0; i < nr; i++) {
		bool ended = infos[i].flags & UAPI_SHMEM_BUF_ENDED;

		if (!ended && rand_r(seed) % 100)
			continue;
		assert_int_equal(abi_unreg(&shared->s, infos[i].index), 0);
		*nr_ended += ended;
		left--;
	}
	return left;
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

static void every_byte_is_right(void **state)
{
	unsigned long nr_taken = 0, nr_ended = 0, nr_requests = 0, nr_forks = 0, nr_lost = 0;
	unsigned int seed = (unsigned int)time(NULL), round = 0;
	time_t end;
	int nr = 0;

	(void)state;
	requires_foreign();
	print_message("seed %u\n", seed);
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
	/* longer on a machine where nothing has happened yet */
	for (end = time(NULL) + seconds;
	     (time(NULL) < end || (!(nr_ended && nr_in_place) && time(NULL) < end + 60)) &&
	     !shared->wrong;
	     round++) {
		nr = give_back(&seed, &nr_ended);
		for (int i = 0; i < 8 && nr < (int)NR_BUFS; i++)
			if (take_some(&seed) >= 0) {
				nr_taken++;
				nr++;
			}
		if (round % 64 == 63) {
			end_process(round / 64 % NR_PROCESSES);
			start_process(round / 64 % NR_PROCESSES, seed + round);
		}
		if (round % 256 == 100)
			compact();
	}
	for (unsigned int i = 0; i < NR_PROCESSES; i++)
		end_process(i);
	assert_false(shared->wrong);
	for (unsigned int i = 0; i < NR_PROCESSES; i++)
		for (unsigned int j = 0; j < NR_THREADS; j++) {
			nr_requests += shared->processes[i].workers[j].nr_requests;
			nr_forks += shared->processes[i].workers[j].nr_forks;
			nr_lost += shared->processes[i].workers[j].nr_lost;
		}
	print_message("%lu requests, %lu forks, %lu times memory was lost; %lu in place, %lu "
		      "copied; %lu times taken, %lu ended\n",
		      nr_requests, nr_forks, nr_lost, nr_in_place, nr_copied, nr_taken, nr_ended);
	assert_true(nr_in_place && nr_copied && nr_forks && nr_lost && nr_ended);
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
	return cmocka_run_group_tests(tests, NULL, NULL);
}
