/* SPDX-License-Identifier: MIT */
/*
 * processes.c - fork, exec, threads and limits, as programs use them.
 *
 * usage: processes FILE [NAME...]
 *
 * Run under libublkzc.so, with all tiers on and in each fork mode; does direct
 * I/O on FILE (1 MiB is overwritten), which on a ublk device arms the shim.  Knows
 * nothing of the shim: all it checks is what any program may expect.  Each
 * check has a process of its own and a deadline.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE 120 /* seconds for one check, emulation included */
#define KINDS 3
#define SIZE (2UL << 20)
#define IO (64UL << 10)
#define THREADS 3

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "  line %d: %s (errno %d)\n", __LINE__, #what, errno);     \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

extern char **environ;
static const char *path;

/* One buffer of each kind that may be captured. */
static unsigned char *buffer[KINDS];

static void allocate_all(void)
{
	void *p;

	CHECK(posix_memalign(&p, 4096, SIZE) == 0);
	buffer[0] = p;
	buffer[1] = malloc(SIZE);
	buffer[2] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(buffer[1] && buffer[2] != MAP_FAILED);
}

static void free_all(void)
{
	free(buffer[0]);
	free(buffer[1]);
	munmap(buffer[2], SIZE);
}

static void fill(unsigned char value)
{
	for (int k = 0; k < KINDS; k++)
		memset(buffer[k], value, SIZE);
}

static bool all_are(unsigned char value)
{
	for (int k = 0; k < KINDS; k++)
		for (size_t i = 0; i < SIZE; i++)
			if (buffer[k][i] != value)
				return false;
	return true;
}

/* Not inlined, so that no variable of it lives across vfork. */
__attribute__((noinline)) static int open_direct(void)
{
	int fd = open(path, O_RDWR | O_DIRECT);

	return fd < 0 && errno == EINVAL ? open(path, O_RDWR) : fd;
}

/* Write and read back @bytes at @at through a fresh aligned buffer. */
static void do_io(int fd, off_t at, unsigned char value)
{
	unsigned char *p;

	CHECK(posix_memalign((void **)&p, 4096, IO) == 0);
	memset(p, value, IO);
	CHECK(pwrite(fd, p, IO, at) == (ssize_t)IO);
	memset(p, ~value, IO);
	CHECK(pread(fd, p, IO, at) == (ssize_t)IO);
	for (size_t i = 0; i < IO; i++)
		CHECK(p[i] == value);
	free(p);
}

static void expect_well(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

__attribute__((noinline)) static int arm(void)
{
	int fd = open_direct();

	CHECK(fd >= 0);
	allocate_all();
	do_io(fd, 0, 0x11);
	return fd;
}

/* ---- snapshots ---- */

struct turns {
	int there[2], back[2];
};

static void make_turns(struct turns *t)
{
	CHECK(pipe(t->there) == 0 && pipe(t->back) == 0);
}

static void pass(int fd)
{
	CHECK(write(fd, "", 1) == 1);
}

static void await(int fd)
{
	char byte;

	CHECK(read(fd, &byte, 1) == 1);
}

static void snapshot(int depth)
{
	struct turns t;
	pid_t pid;

	make_turns(&t);
	fill(1);
	pid = fork();
	if (pid == 0) {
		CHECK(all_are(1));
		await(t.there[0]); /* the parent has written 2 */
		CHECK(all_are(1));
		if (depth)
			snapshot(depth - 1);
		fill(3);
		pass(t.back[1]);
		await(t.there[0]); /* the parent has looked */
		CHECK(all_are(3));
		_exit(0);
	}
	fill(2);
	pass(t.there[1]);
	await(t.back[0]); /* the child has written 3 */
	CHECK(all_are(2));
	pass(t.there[1]);
	expect_well(pid);
}

static void snapshots_are_exact_both_ways(void)
{
	arm();
	for (int i = 0; i < 3; i++)
		snapshot(0);
}

static void nested_forks(void)
{
	arm();
	snapshot(3);
}

/* A child that goes on for long, with what it has inherited and its own. */
static void a_child_works_on(void)
{
	int fd = arm();
	pid_t pid;

	fill(1);
	pid = fork();
	if (pid == 0) {
		unsigned char *grown;

		CHECK(all_are(1));
		do_io(fd, (off_t)IO, 0x22);
		grown = realloc(buffer[1], 2 * SIZE);
		CHECK(grown && grown[0] == 1 && grown[SIZE - 1] == 1);
		free(grown);
		free(buffer[0]);
		munmap(buffer[2], SIZE);
		allocate_all();
		for (int i = 0; i < 20; i++)
			do_io(fd, (off_t)IO, (unsigned char)i);
		fd = open_direct(); /* a session of its own */
		do_io(fd, (off_t)IO, 0x23);
		snapshot(1);
		free_all();
		_exit(0);
	}
	for (int i = 0; i < 20; i++)
		do_io(fd, 0, (unsigned char)i);
	expect_well(pid);
	CHECK(all_are(1));
}

/* ---- threads ---- */

static atomic_bool stop;

static void *io_thread(void *arg)
{
	off_t at = (off_t)((uintptr_t)arg * IO);
	int fd = open_direct();

	CHECK(fd >= 0);
	for (unsigned char i = 0; !stop; i++)
		do_io(fd, at, i);
	close(fd);
	return NULL;
}

static void *allocating_thread(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	while (!stop) {
		size_t size = 512 + (size_t)rand_r(&seed) % 300000;
		unsigned char *p;

		CHECK(posix_memalign((void **)&p, 512, size) == 0);
		p[0] = p[size - 1] = 7;
		free(p);
		p = calloc(1, size);
		CHECK(p && !p[0] && !p[size / 2] && !p[size - 1]);
		free(p);
	}
	return NULL;
}

static void start_threads(pthread_t ids[THREADS], void *(*main)(void *))
{
	stop = false;
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&ids[i], NULL, main, (void *)(i + 1)) == 0);
}

static void end_threads(pthread_t ids[THREADS])
{
	stop = true;
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_join(ids[i], NULL) == 0);
}

static void fork_while_io_is_in_flight(void)
{
	pthread_t ids[THREADS];

	arm();
	fill(5);
	start_threads(ids, io_thread);
	for (int i = 0; i < 15; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			CHECK(all_are(5));
			fill(6);
			_exit(0);
		}
		usleep(20000);
		expect_well(pid);
	}
	end_threads(ids);
	CHECK(all_are(5));
}

static void fork_while_threads_allocate(void)
{
	pthread_t ids[THREADS];

	arm();
	fill(5);
	start_threads(ids, allocating_thread);
	for (int i = 0; i < 30; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			free_all(); /* no lock was left held */
			allocate_all();
			_exit(0);
		}
		expect_well(pid);
	}
	end_threads(ids);
	CHECK(all_are(5));
}

static void *forking_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			CHECK(all_are(5));
			_exit(0);
		}
		expect_well(pid);
	}
	return NULL;
}

static void threads_fork_at_once(void)
{
	pthread_t ids[THREADS];

	arm();
	fill(5);
	start_threads(ids, forking_thread);
	end_threads(ids);
	CHECK(all_are(5));
}

/* ---- other ways to make a process ---- */

static void spawn_all_ways(void)
{
	char *argv[] = { (char *)"true", NULL };
	FILE *pipe_stream;
	char line[16] = "";
	pid_t pid;

	CHECK(posix_spawnp(&pid, "true", NULL, NULL, argv, environ) == 0);
	expect_well(pid);
	CHECK(system("exit 3") >> 8 == 3);
	pipe_stream = popen("echo hello", "r");
	CHECK(pipe_stream && fgets(line, sizeof(line), pipe_stream));
	CHECK(strcmp(line, "hello\n") == 0 && pclose(pipe_stream) == 0);
	pid = fork();
	if (pid == 0) {
		execvp("true", argv);
		_exit(9);
	}
	expect_well(pid);
	pid = vfork();
	if (pid == 0) {
		/* What shells do in between. */
		close(100);
		dup2(0, 101);
		execvp("true", argv);
		_exit(9);
	}
	expect_well(pid);
}

static void spawning_storms(void)
{
	pthread_t ids[THREADS];

	arm();
	fill(5);
	start_threads(ids, allocating_thread);
	for (int i = 0; i < 8; i++)
		spawn_all_ways();
	end_threads(ids);
	CHECK(all_are(5));
}

/* A vfork child runs in its parent's memory and must change nothing there. */
static void vfork_children_that_allocate_and_open(void)
{
	int fd = arm();
	volatile pid_t pid;

	fill(5);
	for (int i = 0; i < 5; i++) {
		pid = vfork();
		if (pid == 0) {
			int other = open_direct();

			free(malloc(100000));
			close(other);
			_exit(0);
		}
		expect_well(pid);
		do_io(fd, 0, (unsigned char)i);
	}
	CHECK(all_are(5));
	snapshot(0);
}

static pid_t raw_clone(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

/* No handler of fork runs: the child gets along, and the parent is unharmed. */
static void children_behind_our_back(void)
{
	int fd = arm();

	fill(5);
	for (int i = 0; i < 10; i++) {
		pid_t pid = i % 2 ? _Fork() : raw_clone();

		if (pid == 0) {
			void *p;

			CHECK(posix_memalign(&p, 4096, SIZE) == 0);
			memset(p, 9, SIZE);
			free(p);
			free(buffer[0]);
			CHECK(madvise(buffer[2], SIZE, MADV_DONTNEED) == 0);
			munmap(buffer[2], SIZE);
			_exit(0);
		}
		expect_well(pid);
		CHECK(all_are(5));
	}
	do_io(fd, 0, 0x33);
	snapshot(0);
}

/* ---- descriptors ---- */

static void close_all(void)
{
	CHECK(syscall(SYS_close_range, 3, ~0U, 0) == 0);
}

static void a_child_closes_all_descriptors(void)
{
	int fd = arm();
	pid_t pid;

	fill(5);
	pid = fork();
	if (pid == 0) {
		close_all();
		CHECK(all_are(5));
		free_all();
		fd = arm();
		do_io(fd, (off_t)IO, 0x44);
		snapshot(0);
		_exit(0);
	}
	expect_well(pid);
	do_io(fd, 0, 0x45);
}

static void all_descriptors_are_closed_under_us(void)
{
	int fd = arm();

	fill(5);
	close_all();
	CHECK(all_are(5));
	fd = open_direct();
	for (int i = 0; i < 5; i++)
		do_io(fd, 0, (unsigned char)i);
	snapshot(1);
	allocate_all();
	snapshot(0);
}

static void something_else_comes_under_our_descriptors(void)
{
	int null;
	int fd = arm();

	fill(5);
	null = open("/dev/null", O_RDWR);
	for (int i = 3; i < 1000; i++)
		if (i != fd && i != null)
			dup2(null, i);
	do_io(fd, 0, 0x55);
	CHECK(all_are(5));
	fd = open_direct();
	do_io(fd, 0, 0x56);
	snapshot(1);
	for (int i = 3; i < 1000; i++) /* none of them was closed */
		CHECK(fcntl(i, F_GETFD) >= 0);
}

/* ---- privileges and limits ---- */

static void chroot_and_other_user(void)
{
	int fd = arm();

	if (geteuid() != 0)
		return;
	fill(5);
	CHECK(chroot("/proc") == 0 && chdir("/") == 0);
	CHECK(setgid(65534) == 0 && setuid(65534) == 0);
	do_io(fd, 0, 0x66);
	CHECK(open_direct() < 0);
	free_all();
	allocate_all();
	do_io(fd, 0, 0x67);
	snapshot(1);
}

static void limit(int resource, rlim_t value)
{
	struct rlimit l = { value, value };

	CHECK(setrlimit(resource, &l) == 0);
}

static void no_descriptors_left(void)
{
	int fd = open_direct();

	CHECK(fd >= 0);
	limit(RLIMIT_NOFILE, (rlim_t)fd + 1);
	allocate_all();
	do_io(fd, 0, 0x71);
	CHECK(open("/dev/null", O_RDONLY) < 0 && errno == EMFILE);
	fill(5);
	CHECK(all_are(5));
	free_all();
}

static void little_address_space(void)
{
	int fd = open_direct();
	void *volatile large; /* else a compiler may leave the call out */

	limit(RLIMIT_AS, 512UL << 20);
	allocate_all();
	do_io(fd, 0, 0x72);
	large = malloc(1UL << 30);
	CHECK(large == NULL && errno == ENOMEM);
	fill(5);
	CHECK(all_are(5));
}

static void no_locked_memory(void)
{
	int fd;

	limit(RLIMIT_MEMLOCK, 0);
	fd = arm();
	do_io(fd, 0, 0x73);
	snapshot(0);
}

/* Growing a memfd beyond it would be SIGXFSZ. */
static void small_files_only(void)
{
	limit(RLIMIT_FSIZE, 2UL << 20);
	allocate_all();
	fill(5);
	CHECK(all_are(5));
	snapshot(0);
}

static void no_more_processes(void)
{
	int fd = arm();

	fill(5);
	if (geteuid() == 0)
		CHECK(setgid(65534) == 0 && setuid(65534) == 0);
	limit(RLIMIT_NPROC, 0);
	CHECK(fork() < 0 && errno == EAGAIN);
	CHECK(all_are(5));
	allocate_all();
	do_io(fd, 0, 0x74);
}

/* ---- all together ---- */

static const struct check {
	const char *name;
	void (*run)(void);
} checks[] = {
	{ "snapshots_are_exact_both_ways", snapshots_are_exact_both_ways },
	{ "nested_forks", nested_forks },
	{ "a_child_works_on", a_child_works_on },
	{ "fork_while_io_is_in_flight", fork_while_io_is_in_flight },
	{ "fork_while_threads_allocate", fork_while_threads_allocate },
	{ "threads_fork_at_once", threads_fork_at_once },
	{ "spawning_storms", spawning_storms },
	{ "vfork_children_that_allocate_and_open", vfork_children_that_allocate_and_open },
	{ "children_behind_our_back", children_behind_our_back },
	{ "a_child_closes_all_descriptors", a_child_closes_all_descriptors },
	{ "all_descriptors_are_closed_under_us", all_descriptors_are_closed_under_us },
	{ "something_else_comes_under_our_descriptors",
	  something_else_comes_under_our_descriptors },
	{ "chroot_and_other_user", chroot_and_other_user },
	{ "no_descriptors_left", no_descriptors_left },
	{ "little_address_space", little_address_space },
	{ "no_locked_memory", no_locked_memory },
	{ "small_files_only", small_files_only },
	{ "no_more_processes", no_more_processes },
};

static bool wanted(const char *name, char **names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (strcmp(name, *names) == 0)
			return true;
	return false;
}

static bool passes(const struct check *c)
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		perror("  fork");
		return false;
	}
	if (pid == 0) {
		setpgid(0, 0);
		alarm(DEADLINE);
		c->run();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	kill(-pid, SIGKILL); /* what a failed check left behind */
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (WIFSIGNALED(status))
		fprintf(stderr, "  ended by signal %d\n", WTERMSIG(status));
	return false;
}

int main(int argc, char **argv)
{
	unsigned int failed = 0, passed = 0;

	if (argc < 2) {
		fputs("usage: processes FILE [NAME...]\n", stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	path = argv[1];
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		bool well;

		if (!wanted(checks[i].name, argv + 2))
			continue;
		well = passes(&checks[i]);
		printf("%s: %s\n", well ? "ok" : "FAILED", checks[i].name);
		passed += well;
		failed += !well;
	}
	printf("%u passed, %u failed\n", passed, failed);
	return failed || !passed;
}
