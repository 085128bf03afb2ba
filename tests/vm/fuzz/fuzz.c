/* SPDX-License-Identifier: MIT */
/*
 * fuzz.c - sequences of control commands, I/O, deaths and recoveries, against a model of the
 * driver's ABI (world.h).
 *
 * A sequence is a number: it can be run again.  One that fails is run again and again without
 * one step or the other, as long as it still fails, and what is left of it is printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "world.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define HUGE (2UL << 20)

struct world *world;
static int kernel_log = -1;
static const char *without = "";
static long patience = 240; /* seconds: no sequence takes that long on any machine */

struct step {
	const char *name;
	void (*run)(struct device *d);
	unsigned int weight;
	uint64_t needs; /* of the driver; kernel-patch/'s has all */
};

static const struct step steps[] = {
	{ "add", step_add, 12, 0 },
	{ "params", step_params, 8, 0 },
	{ "serve", step_serve, 12, 0 },
	{ "start", step_start, 12, 0 },
	{ "stop", step_stop, 1, 0 },
	{ "delete", step_delete, 1, 0 },
	{ "kill", step_kill, 2, 0 },
	{ "begin recovery", step_begin_recovery, 4, 0 },
	{ "end recovery", step_end_recovery, 6, 0 },
	{ "ask", step_ask, 2, 0 },
	{ "nonsense", step_nonsense, 2, 0 },
	{ "register", step_register, 16, 0 },
	{ "register wrong", step_register_wrong, 2, 0 },
	{ "unregister", step_unregister, 10, 0 },
	{ "unregister many", step_unregister_many, 1, UAPI_F_SHMEM_LIST },
	{ "list", step_list, 4, UAPI_F_SHMEM_LIST },
	{ "request", step_request, 30, 0 },
	{ "unregister held", step_unregister_held, 3, UAPI_F_SHMEM_LIST },
	{ "kill held", step_kill_held, 3, 0 },
	{ "storm", step_storm, 1, 0 },
	{ "register private memory", step_register_foreign, 10, UAPI_F_SHMEM_FOREIGN },
	{ "change private memory", step_change_foreign, 4, UAPI_F_SHMEM_FOREIGN },
	{ "change it under a request", step_change_held, 6, UAPI_F_SHMEM_FOREIGN },
	{ "hints", step_hints, 3, UAPI_F_SHMEM_HINTS },
};
#define NR_KINDS (sizeof(steps) / sizeof(steps[0]))

/* ---- one sequence ---- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

uint64_t draw(void)
{
	world->random += 0x9e3779b97f4a7c15ULL;
	return mix(world->random) >> 8;
}

static void report(const char *format, va_list arguments)
{
	if (world->failed)
		return;
	vsnprintf(world->failure, sizeof(world->failure), format, arguments);
	world->failed = true;
}

void wrong(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	report(format, arguments);
	va_end(arguments);
	/* no process ends while a request of its waits */
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		world->devices[i].hold = false;
	_exit(1);
}

void expect(int got, int expected, const char *what)
{
	if (got == expected)
		return;
	wrong("%s: %d (%s), not %d (%s)", what, got, got < 0 ? strerror(-got) : "", expected,
	      expected < 0 ? strerror(-expected) : "");
}

void trace(const char *format, ...)
{
	size_t room = sizeof(world->trace) - world->trace_end;
	va_list arguments;
	int n;

	n = snprintf(world->trace + world->trace_end, room, "  %2u %c: ", world->at_step,
		     'a' + (char)world->at_device);
	va_start(arguments, format);
	n += vsnprintf(world->trace + world->trace_end + n, room - (size_t)n, format, arguments);
	va_end(arguments);
	n += snprintf(world->trace + world->trace_end + n, room - (size_t)n, "\n");
	if ((size_t)n < room)
		world->trace_end += (size_t)n;
}

static const struct step *pick(void)
{
	unsigned int all = 0, at;

	for (size_t i = 0; i < NR_KINDS; i++)
		all += steps[i].weight;
	at = below(all);
	for (size_t i = 0;; i++) {
		if (at < steps[i].weight)
			return &steps[i];
		at -= steps[i].weight;
	}
}

static void map_arena(void)
{
	uint8_t *hole = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *p = (uint8_t *)(((uintptr_t)hole + HUGE - 1) & ~(HUGE - 1));
	int fd = memfd_create("fuzz", 0);

	if (hole == MAP_FAILED || fd < 0 || ftruncate(fd, HUGE))
		wrong("fuzzer: no memory");
	if (one_in(2)) { /* one physical piece, if it can be had */
		mmap(p, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
		memset(p, 0, HUGE);
		madvise(p, HUGE, MADV_COLLAPSE);
		munmap(p, HUGE);
	}
	for (int v = 0; v < NR_VIEWS; v++) {
		int prot = v == READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE;
		uint8_t *view = mmap(NULL, 2 * NR_PAGES * PAGE, PROT_NONE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (unsigned int i = 0; i < NR_PAGES; i++)
			if (mmap(view + i * PAGE, PAGE, prot, MAP_SHARED | MAP_FIXED, fd,
				 (off_t)((v == SHUFFLED ? world->order[i] : i) * PAGE)) ==
			    MAP_FAILED)
				wrong("fuzzer: mmap: %s", strerror(errno));
		world->views[v] = view;
	}
	for (unsigned int i = 0; i < NR_PAGES; i++)
		memset(world->views[IN_ORDER] + i * PAGE, (int)i, PAGE);
	remember_arena();
	close(fd);
}

/* Pieces of some pages each, in another order. */
static void shuffle(void)
{
	unsigned int piece = 1 + below(4);

	for (unsigned int i = 0; i < NR_PAGES; i++)
		world->order[i] = i;
	for (unsigned int i = NR_PAGES / piece - 1; i; i--) {
		unsigned int k = below(i + 1);

		for (unsigned int n = 0; n < piece; n++) {
			unsigned int page = world->order[i * piece + n];

			world->order[i * piece + n] = world->order[k * piece + n];
			world->order[k * piece + n] = page;
		}
	}
}

static void check_pinned(void)
{
	long must = (long)nr_registered_pages(), is = 0;

	for (int i = 0; i < 2000; i++) { /* the last reference goes a moment after the command */
		is = pinned_pages();
		if (is == must)
			return;
		usleep(5000);
	}
	wrong("%ld pages are pinned, not %ld", is, must);
}

/* One that makes sense as things are; what does nothing says nothing. */
static void run_step(void)
{
	size_t before = world->trace_end;

	for (int i = 0; i < 10 && world->trace_end == before; i++) {
		const struct step *step = pick();

		world->at_device = one_in(6);
		if (strcmp(step->name, without) == 0)
			continue;
		step->run(&world->devices[world->at_device]);
		world->nr_done[step - steps] += world->trace_end > before;
	}
}

static void run_sequence(void)
{
	world->random = mix(world->seed);
	shuffle();
	map_arena();
	make_owners();
	for (unsigned int i = 0; i < world->nr_steps; i++) {
		world->at_step = i;
		world->random = mix(world->seed + (uint64_t)(i + 1) * 0x632be59bd9b4e019ULL);
		if (!(world->skipped >> i & 1))
			run_step();
	}
	check_pinned();
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		if (world->devices[i].life != NONE)
			delete_device(&world->devices[i], true);
	check_pinned();
	end_owners();
	_exit(0);
}

/* ---- around it ---- */

static bool kernel_complains(void)
{
	static const char *const signs[] = { "BUG:",
					     "WARNING:",
					     "KASAN:",
					     "KCSAN:",
					     "ODEBUG:",
					     "UBSAN:",
					     "blocked for more than",
					     "possible circular",
					     "possible recursive",
					     "suspicious RCU",
					     "inconsistent lock" };
	char line[8192];
	bool found = false;
	ssize_t n;

	while ((n = read(kernel_log, line, sizeof(line) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		if (n < 0)
			continue; /* some were lost */
		line[n] = '\0';
		for (size_t i = 0; !found && i < sizeof(signs) / sizeof(signs[0]); i++)
			if (strstr(line, signs[i])) {
				world->failed = found = true;
				snprintf(world->failure, sizeof(world->failure),
					 "the kernel: %.900s",
					 strchr(line, ';') ? strchr(line, ';') + 1 : line);
			}
	}
	return found;
}

static void say_where_it_hangs(pid_t pid)
{
	char command_line[256];

	snprintf(command_line, sizeof(command_line),
		 "for t in /proc/%d/task/* $(pgrep -P %d | sed s,^,/proc/,); do cat $t/comm "
		 "$t/stack; done; echo w >/proc/sysrq-trigger",
		 pid, pid);
	if (system(command_line))
		fprintf(stderr, "fuzz: no stacks\n");
}

/* Whatever a sequence that failed has left. */
static void clean_up(void)
{
	for (unsigned int i = 0; i < NR_DEVICES; i++) {
		struct device *d = &world->devices[i];

		if (d->server > 0)
			kill(d->server, SIGKILL);
		if (d->life != NONE)
			command_raw(UBLK_U_CMD_DEL_DEV_ASYNC, d->number, 0, 0, 0);
	}
	usleep(100000);
}

static void renew_world(uint64_t seed, uint64_t skipped)
{
	world->seed = seed;
	world->skipped = skipped;
	world->failed = false;
	world->at_device = world->trace_end = 0;
	world->trace[0] = world->failure[0] = '\0';
	/* not the disks: what is on them is all the same, and 8 MiB */
	for (unsigned int i = 0; i < NR_DEVICES; i++) {
		memset(&world->devices[i], 0, offsetof(struct device, disk));
		world->devices[i].disk_fd = -1;
	}
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Does it pass? */
static bool passes(uint64_t seed, uint64_t skipped)
{
	int status = 0;
	double began;
	pid_t pid;

	renew_world(seed, skipped);
	pid = fork();
	if (pid == 0)
		run_sequence();
	began = seconds();
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (seconds() - began > (double)patience) {
			printf("sequence %" PRIu64 " hangs: %s\n%s", seed, world->failure,
			       world->trace);
			fflush(stdout);
			say_where_it_hangs(pid);
			exit(1);
		}
		usleep(1000);
	}
	if (kernel_complains() || world->failed || status) {
		if (!world->failed)
			snprintf(world->failure, sizeof(world->failure), "it died: status %x",
				 (unsigned int)status);
		clean_up();
		return false;
	}
	return true;
}

/* Which steps must stay for it to fail?  Twice, as leaving one out may make others needless. */
static void minimise(uint64_t seed)
{
	uint64_t skipped = 0;

	for (unsigned int round = 0; round < 2; round++)
		for (unsigned int i = world->nr_steps; i--;) {
			uint64_t less = skipped | 1ULL << i;

			if (!(skipped >> i & 1) && !passes(seed, less))
				skipped = less;
		}
	if (passes(seed, skipped))
		printf("what is left of it does not always fail\n");
	else
		printf("what is left of it: %s\n%s", world->failure, world->trace);
}

static void learn_about_driver(void)
{
	struct utsname name;

	uname(&name);
	world->is_612 = strncmp(name.release, "6.12.", 5) == 0;
	if (command_raw(UBLK_U_CMD_GET_FEATURES, 0, (uintptr_t)&world->features,
			sizeof(world->features), 0)) {
		fprintf(stderr, "fuzz: no answer from /dev/ublk-control\n");
		exit(2);
	}
	world->ours = world->features & UAPI_F_SHMEM_LIST;
	if (!(world->features & UBLK_F_SHMEM_ZC)) {
		fprintf(stderr, "fuzz: the driver lacks SHMEM_ZC\n");
		exit(2);
	}
}

static void summarise(uint64_t nr)
{
	printf("%" PRIu64 " sequences of %u steps passed:", nr, world->nr_steps);
	for (size_t i = 0; i < NR_KINDS; i++)
		printf("%s %s %llu", i ? "," : "", steps[i].name, world->nr_done[i]);
	printf("; requests copied %llu, matched %llu, listed %llu; private memory that the kernel "
	       "moved %llu\n",
	       world->nr_requests[COPIED], world->nr_requests[MATCHED], world->nr_requests[LISTED],
	       world->nr_moved);
}

/*
 * A fuzzer that reaches nothing passes, too.  So many sequences have all that there is; a slow
 * machine, which runs fewer in the same time, has had the usual.
 */
#define ENOUGH_FOR_ALL 200
#define ENOUGH_FOR_REQUESTS 30

static bool has_done_enough(uint64_t nr)
{
	bool all = world->nr_requests[COPIED] && world->nr_requests[MATCHED];

	if (nr < ENOUGH_FOR_ALL)
		return all || nr < ENOUGH_FOR_REQUESTS;
	for (size_t i = 0; i < NR_KINDS; i++)
		all = all && (world->nr_done[i] || strcmp(steps[i].name, without) == 0 ||
			      (steps[i].needs & ~world->features) != 0);
	return all && (!world->ours || world->nr_requests[LISTED]);
}

static const char usage[] =
	"usage: fuzz [--seed N] [--sequences N | --seconds N] [--steps N] [--keep-going]\n"
	"            [--without KIND] [--patience SECONDS]\n"
	"\n"
	"Sequences N, N+1, ... (default: from the clock) against the driver that is loaded, 100 "
	"of\n"
	"them or for so many seconds, of 40 steps (at most 64).  Stops at the first that fails, "
	"and\n"
	"says which of its steps are needed; --keep-going: with the next.  The same number and "
	"steps\n"
	"are the same sequence.  --without leaves out all steps of a kind, as they are called at "
	"the\n"
	"end, when a known fault of the driver would hide others.  A sequence that takes longer "
	"than the patience\n"
	"(default: 240) hangs.  As root; no other ublk device may be in use.\n";

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", 1, NULL, 's' },
						 { "sequences", 1, NULL, 'n' },
						 { "seconds", 1, NULL, 't' },
						 { "steps", 1, NULL, 'l' },
						 { "keep-going", 0, NULL, 'k' },
						 { "patience", 1, NULL, 'p' },
						 { "without", 1, NULL, 'w' },
						 { "help", 0, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	uint64_t seed = (uint64_t)time(NULL) * 1000, most = 100, nr = 0, nr_failed = 0;
	double limit = 0, began = seconds();
	bool keep_going = false;
	unsigned int nr_steps = 40;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			most = strtoull(optarg, NULL, 0);
			break;
		case 't':
			limit = atof(optarg);
			most = UINT64_MAX;
			break;
		case 'l':
			nr_steps = (unsigned int)atoi(optarg);
			break;
		case 'p':
			patience = atol(optarg);
			break;
		case 'w':
			without = optarg;
			break;
		case 'k':
			keep_going = true;
			break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : 2;
		}
	}
	if (optind < argc || !nr_steps || nr_steps > MAX_STEPS) {
		fputs(usage, stderr);
		return 2;
	}
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (world == MAP_FAILED || kernel_log < 0 || lseek(kernel_log, 0, SEEK_END) < 0) {
		perror("fuzz");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	world->nr_steps = nr_steps;
	learn_about_driver();
	printf("fuzz: from sequence %" PRIu64 ", %s driver\n", seed, world->ours ? "our" : "stock");
	for (; nr < most && (limit == 0 || seconds() - began < limit); nr++) {
		if (passes(seed + nr, 0))
			continue;
		printf("sequence %" PRIu64 " (--seed %" PRIu64 " --sequences 1 --steps %u): %s\n%s",
		       seed + nr, seed + nr, nr_steps, world->failure, world->trace);
		nr_failed++;
		minimise(seed + nr);
		if (!keep_going)
			return 1;
	}
	summarise(nr - nr_failed);
	if (!has_done_enough(nr)) {
		printf("fuzz: some of that never happened\n");
		return 1;
	}
	return nr_failed != 0;
}
