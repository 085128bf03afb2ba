/* SPDX-License-Identifier: MIT */
/* kernel.c - what the kernel allows, works; what a program forbids itself, nobody does. */
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"

#define MIB (1UL << 20)
#define NOBODY 65534

/* ---- guard pages ---- */

#define GUARDS 30000
#define STACK (4 * 4096UL)

static double guard(unsigned char **stacks)
{
	double began = seconds();

	for (unsigned int i = 0; i < GUARDS; i++) {
		CHECK(mprotect(stacks[i], 4096, PROT_NONE) == 0);
		stacks[i][4096] = 1;
	}
	for (unsigned int i = 0; i < GUARDS; i++)
		CHECK(mprotect(stacks[i], 4096, PROT_READ | PROT_WRITE) == 0);
	return seconds() - began;
}

/* Stacks of fibers: beside the same in memory that nobody looks at. */
static void guard_pages(void)
{
	unsigned char *plain = (unsigned char *)syscall(
		SYS_mmap, NULL, GUARDS * STACK, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char **stacks = calloc(GUARDS, sizeof(*stacks));
	double of_kernel, began, freeing;
	void *p;

	for (unsigned int i = 0; i < GUARDS; i++)
		stacks[i] = plain + i * STACK;
	of_kernel = guard(stacks);
	munmap(plain, GUARDS * STACK);
	for (unsigned int i = 0; i < GUARDS; i++) {
		CHECK(posix_memalign(&p, 4096, STACK) == 0);
		stacks[i] = p;
	}
	began = guard(stacks);
	CHECK(began < 4 * of_kernel + 0.5);
	began = seconds();
	for (unsigned int i = 0; i < GUARDS; i++)
		free(stacks[i]);
	freeing = seconds() - began;
	CHECK(freeing < 4 * of_kernel + 0.5);
}

/* Freed as they are: what is allocated next can be written to. */
static void guards_freed_in_place(void)
{
	for (int round = 0; round < 3000; round++) {
		unsigned char *p = aligned(STACK, 1);

		CHECK(mprotect(p + 4096, 4096, PROT_READ) == 0);
		CHECK(mprotect(p + 4096, 4096, PROT_READ | PROT_WRITE) == 0);
		free(p);
	}
}

/* A block that is freed with a guard in it, and what comes after it. */
static void freed_with_guards(void)
{
	CHECK(mallopt(M_MMAP_THRESHOLD, 65536)); /* libc's own go back as a whole */
	for (int round = 0; round < 20; round++) {
		unsigned char *p = aligned(MIB, 1), *next;

		CHECK(mprotect(p + MIB / 2, 4096, PROT_NONE) == 0);
		CHECK(mprotect(p + MIB / 4, 4096, PROT_READ) == 0);
		free(p);
		next = aligned(MIB, 2);
		CHECK(all_are(next, MIB, 2));
		free(next);
	}
}

/* ---- userfaultfd ---- */

static void *serve_faults(void *arg)
{
	int fd = *(int *)arg;
	unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				   -1, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct uffd_msg msg;

	memset(page, 'f', 4096);
	while (poll(&p, 1, 10000) == 1 && read(fd, &msg, sizeof(msg)) == sizeof(msg)) {
		struct uffdio_copy copy = { .dst = msg.arg.pagefault.address & ~4095UL,
					    .src = (unsigned long)page,
					    .len = 4096 };

		if (ioctl(fd, UFFDIO_COPY, &copy) < 0)
			break;
	}
	return NULL;
}

static int open_userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		skip("no userfaultfd here");
	CHECK(ioctl(fd, UFFDIO_API, &api) == 0);
	return fd;
}

static int register_with(int fd, void *map, size_t len, unsigned long mode)
{
	struct uffdio_register range = { .range = { (unsigned long)map, len }, .mode = mode };

	return ioctl(fd, UFFDIO_REGISTER, &range);
}

static int userfaultfd_for(void *map, size_t len)
{
	int fd = open_userfaultfd();

	CHECK(register_with(fd, map, len, UFFDIO_REGISTER_MODE_MISSING) == 0);
	return fd;
}

/* Shared memory has minor faults, private memory has none. */
static void no_minor_faults(void)
{
	unsigned char *map = mapped(2 * MIB, 1), *block = aligned(2 * MIB, 1);
	int fd = open_userfaultfd();

	CHECK(register_with(fd, map, 2 * MIB, UFFDIO_REGISTER_MODE_MINOR) < 0);
	CHECK(register_with(fd, block, 2 * MIB, UFFDIO_REGISTER_MODE_MINOR) < 0);
	CHECK(all_are(map, 2 * MIB, 1) && all_are(block, 2 * MIB, 1));
}

/* A page that was given up is missing, and who registered for that is asked. */
static void faults_after_dontneed(void)
{
	static int fd;
	unsigned char *map = mapped(2 * MIB, 1);
	pthread_t thread;

	CHECK(madvise(map, 2 * MIB, MADV_DONTNEED) == 0);
	fd = userfaultfd_for(map, 2 * MIB);
	CHECK(pthread_create(&thread, NULL, serve_faults, &fd) == 0);
	CHECK(map[5000] == 'f' && map[MIB] == 'f');
}

static void dontneed_under_userfaultfd(void)
{
	static int fd;
	unsigned char *map = mapped(2 * MIB, 1);
	pthread_t thread;

	fd = userfaultfd_for(map, 2 * MIB);
	CHECK(madvise(map, 2 * MIB, MADV_DONTNEED) == 0);
	CHECK(pthread_create(&thread, NULL, serve_faults, &fd) == 0);
	CHECK(map[5000] == 'f' && map[MIB] == 'f');
}

/* ---- limits ---- */

static void become_nobody(void)
{
	if (getuid() == 0)
		CHECK(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
		      setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

/* To what users have where nothing was configured. */
static void limit_locked(void)
{
	const struct rlimit limit = { 8 * MIB, 8 * MIB };

	if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0)
		skip("less memory may be locked than usual");
	become_nobody();
}

static void lock_all(int flags)
{
	unsigned char *blocks[8];

	limit_locked();
	blocks[0] = aligned(65536, 1);
	CHECK(mlockall(flags) == 0);
	for (int i = 1; i < 8; i++)
		blocks[i] = aligned(65536, (unsigned char)i);
	CHECK(proc_kib("/proc/self/status", "VmLck") > 64);
	for (int i = 1; i < 8; i++)
		CHECK(all_are(blocks[i], 65536, (unsigned char)i));
	CHECK(munlockall() == 0);
}

static void lock_all_unprivileged(void)
{
	lock_all(MCL_CURRENT);
}

static void lock_all_future(void)
{
	lock_all(MCL_CURRENT | MCL_FUTURE);
}

/* The limit first: then what is allocated counts. */
static void lock_all_before(void)
{
	limit_locked();
	CHECK(mlockall(MCL_FUTURE) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(aligned(MIB, 1));
}

static int opened(void)
{
	int fd = open("/dev/null", O_RDONLY);

	CHECK(fd >= 0);
	return fd;
}

static void limit_descriptors(rlim_t nr)
{
	const struct rlimit limit = { nr, nr };

	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	close(0);
}

/* The first @nr numbers are free for the program but for those it uses itself. */
static void numbers_are_free(int nr, void (*use)(void))
{
	bool used[1024];

	for (int fd = 0; fd < nr; fd++)
		used[fd] = fcntl(fd, F_GETFD) >= 0;
	use();
	for (int fd = 0; fd < nr; fd++)
		if (!used[fd])
			CHECK(opened() == fd);
}

static void use_some_memory(void)
{
	aligned(65536, 1);
	mapped(2 * MIB, 1);
}

static void standard_descriptors_closed(void)
{
	for (int i = 0; i < 3; i++)
		close(i);
	numbers_are_free(3, use_some_memory);
}

static void sixteen_descriptors(void)
{
	limit_descriptors(16);
	numbers_are_free(16, use_some_memory);
	CHECK(open("/dev/null", O_RDONLY) < 0 && errno == EMFILE);
	aligned(8 * MIB, 1);
	mapped(8 * MIB, 1);
}

/* Some numbers may be others', at the end that is used last. */
static void some_descriptors(void)
{
	static const rlim_t limits[] = { 32, 44, 45, 64, 256, 512, 513, 1024 };

	for (unsigned int i = 0; i < 8; i++) {
		pid_t pid = child();

		if (!pid) {
			limit_descriptors(limits[i]);
			numbers_are_free(20, use_some_memory);
			_exit(0);
		}
		expect_well(pid);
	}
}

/* ---- seccomp ---- */

#define ALLOW(nr)                                                                                  \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##nr, 0, 1),                                       \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* What a program needs that computes, allocates and writes; anything else kills. */
static void forbid_the_unusual(void)
{
	static struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(read),	   ALLOW(write), ALLOW(close),	   ALLOW(brk),
		ALLOW(mmap),	   ALLOW(munmap), ALLOW(mremap),   ALLOW(mprotect),
		ALLOW(madvise),	   ALLOW(futex), ALLOW(exit_group), ALLOW(rt_sigreturn),
		ALLOW(rt_sigprocmask), ALLOW(getrandom), ALLOW(pread64), ALLOW(pwrite64),
		ALLOW(openat),	   ALLOW(newfstatat), ALLOW(clock_gettime), ALLOW(clone),
		ALLOW(wait4),	   ALLOW(set_robust_list), ALLOW(clone3), ALLOW(rseq),
		ALLOW(gettid),	   ALLOW(exit),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		skip("no seccomp here");
}

static void use_memory(void)
{
	unsigned char *map = mapped(4 * MIB, 1), *blocks[40];

	for (int i = 0; i < 40; i++)
		blocks[i] = aligned(4096UL << (i % 10), (unsigned char)i);
	for (int i = 0; i < 40; i++) {
		CHECK(all_are(blocks[i], 4096UL << (i % 10), (unsigned char)i));
		blocks[i] = realloc(blocks[i], 8192UL << (i % 10));
		CHECK(blocks[i] && all_are(blocks[i], 4096UL << (i % 10), (unsigned char)i));
	}
	for (int i = 0; i < 40; i++)
		free(blocks[i]);
	CHECK(mprotect(map, 4096, PROT_READ) == 0);
	CHECK(madvise(map + MIB, MIB, MADV_DONTNEED) == 0 && map[MIB] == 0);
	CHECK(munmap(map, 4 * MIB) == 0);
}

static void sandboxed_from_the_start(void)
{
	forbid_the_unusual();
	use_memory();
	use_memory();
}

static void sandboxed_later(void)
{
	unsigned char *kept = aligned(100000, 7), *map = mapped(2 * MIB, 8);

	use_memory();
	forbid_the_unusual();
	use_memory();
	for (int i = 0; i < 200; i++)
		aligned(MIB, 1);
	CHECK(all_are(kept, 100000, 7) && all_are(map, 2 * MIB, 8));
	free(kept);
	CHECK(munmap(map, 2 * MIB) == 0);
	use_memory();
}

/* As system calls by syscall(), and only seccomp(2). */
static void sandboxed_by_seccomp(void)
{
	aligned(100000, 7);
	forbid_the_unusual();
	CHECK(open(file(), O_RDONLY | O_DIRECT) >= 0 || errno == EINVAL);
	use_memory();
}

/* The first to allocate is a child of vfork, in its parent's memory. */
static void sandboxed_after_vfork(void)
{
	static void *volatile given;
	unsigned char *kept;
	pid_t pid = vfork();

	if (!pid) {
		given = aligned_alloc(4096, 50000);
		_exit(!given);
	}
	expect_well(pid);
	memset(given, 6, 50000);
	kept = aligned(100000, 7);
	pid = child();
	if (!pid)
		_exit(!all_are(given, 50000, 6) || !all_are(kept, 100000, 7));
	expect_well(pid);
	use_memory();
	forbid_the_unusual();
	CHECK(all_are(given, 50000, 6));
	free(given);
	use_memory();
	CHECK(all_are(kept, 100000, 7));
	free(kept);
}

static void sandboxed_forks(void)
{
	unsigned char *kept = aligned(100000, 7), *map = mapped(2 * MIB, 8);

	forbid_the_unusual();
	for (int i = 0; i < 5; i++) {
		pid_t pid = child();

		if (!pid) {
			CHECK(all_are(kept, 100000, 7) && all_are(map, 2 * MIB, 8));
			memset(kept, 9, 100000);
			memset(map, 9, 2 * MIB);
			use_memory();
			_exit(0);
		}
		expect_well(pid);
		CHECK(all_are(kept, 100000, 7) && all_are(map, 2 * MIB, 8));
	}
}

/* ---- descriptors that others look at ---- */

static bool can_reopen(pid_t pid)
{
	char name[64], target[128];

	for (int fd = 0; fd < 1024; fd++) {
		ssize_t len;
		int again;

		snprintf(name, sizeof(name), "/proc/%d/fd/%d", (int)pid, fd);
		len = readlink(name, target, sizeof(target) - 1);
		if (len <= 0)
			continue;
		target[len] = '\0';
		if (strncmp(target, "/memfd:", 7) != 0)
			continue;
		again = open(name, O_RDWR | O_CLOEXEC);
		if (again < 0)
			again = open(name, O_RDONLY | O_CLOEXEC);
		if (again >= 0) {
			fprintf(stderr, "  %s (%s) can be opened\n", name, target);
			return true;
		}
	}
	return false;
}

/* Private memory is the process's, not of everybody who is the same user. */
static void memory_cannot_be_reopened(void)
{
	pid_t pid;

	become_nobody();
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	aligned(65536, 's');
	mapped(2 * MIB, 's');
	pid = child();
	if (!pid)
		_exit(can_reopen(getppid()));
	expect_well(pid);
}

/* ---- standard error ---- */

/* What has descriptor 2 is the program's data: no line of anybody's goes there. */
static void data_file_as_stderr(void)
{
	const struct rlimit few = { 20, 20 };
	char name[] = "/tmp/hostile-XXXXXX";
	int spare = mkstemp(name), fd;
	off_t len;

	CHECK(spare >= 0);
	unlink(name);
	fd = dup(2);
	close(2);
	CHECK(dup(spare) == 2);
	aligned(65536, 1);
	mapped(2 * MIB, 1);
	CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
	while (open("/dev/null", O_RDONLY) >= 0)
		;
	for (int i = 0; i < 2; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
	close(3);
	fd = open(file(), O_RDONLY | O_DIRECT);
	(void)fd;
	aligned(200 * MIB, 1);
	len = lseek(2, 0, SEEK_END);
	_exit(len == 0 ? 0 : 1);
}

const struct attack kernel_attacks[] = {
	{ "guard-pages", guard_pages, "30000 guards in blocks cost what the kernel's do" },
	{ "guards-freed-in-place", guards_freed_in_place, "protection goes with the block" },
	{ "freed-with-guards", freed_with_guards, "and nobody else's later" },
	{ "faults-after-dontneed", faults_after_dontneed, "userfaultfd sees missing pages" },
	{ "no-minor-faults", no_minor_faults, "and takes the memory for private" },
	{ "dontneed-under-userfaultfd", dontneed_under_userfaultfd, "likewise, the other order" },
	{ "lock-all-unprivileged", lock_all_unprivileged, "mlockall works below the limit" },
	{ "lock-all-future", lock_all_future, "and for what comes" },
	{ "lock-all-before", lock_all_before, "of which half the limit is half the limit" },
	{ "standard-descriptors-closed", standard_descriptors_closed, "0 to 2 are the program's" },
	{ "sixteen-descriptors", sixteen_descriptors, "all descriptors are, if there are few" },
	{ "some-descriptors", some_descriptors, "the lowest ones are, always" },
	{ "sandboxed-from-the-start", sandboxed_from_the_start, "no unusual system call" },
	{ "sandboxed-later", sandboxed_later, "also after some usual ones" },
	{ "sandboxed-opens", sandboxed_by_seccomp, "also not for files" },
	{ "sandboxed-after-vfork", sandboxed_after_vfork, "nor what a child of vfork began" },
	{ "sandboxed-forks", sandboxed_forks, "also not for fork" },
	{ "memory-cannot-be-reopened", memory_cannot_be_reopened, "nobody else opens our memory" },
	{ "data-file-as-stderr", data_file_as_stderr, "nobody writes into descriptor 2" },
	{ 0 },
};
