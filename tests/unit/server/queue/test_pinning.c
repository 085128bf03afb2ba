/* SPDX-License-Identifier: MIT */
/*
 * Fixed buffers on the kernel's own io_uring: what is pinned, as VmPin of /proc/self/status
 * tells, ends where it is promised to end.  Newer kernels have there only what counts against a limit,
 * so all is done without capabilities; and within the limit that a shell has, 8 MiB, of a user of whom
 * there is nothing else, because what others of a user have pinned counts as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/life/privileges.h"
#include "server/memory/guard.h"
#include "server/queue/fixed.h"
#include "tests/unit/cmocka_all.h"

#define MIB (1UL << 20)
#define LEN (7 * MIB)
#define MAX_IO (256UL << 10)
#define PINNED (LEN + MAX_IO) /* with what the first piece has of the second */
#define NOBODY_ELSE 100000U

static struct {
	int memory_fd, file_fd;
	uint8_t *base;
	struct buffer_view view;
	struct registry *registry;
	struct queue_counters counters;
	struct io_uring ring;
	bool ring_open;
	struct fixed fixed;
} t;

static unsigned long pinned_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long kib = 0;
	char line[128];

	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "VmPin: %lu kB", &kib) == 1)
			break;
	fclose(f);
	return kib;
}

static unsigned long allocated(void)
{
	struct stat st;

	assert_int_equal(fstat(t.memory_fd, &st), 0);
	return (unsigned long)st.st_blocks * 512;
}

static bool limit_allows(unsigned long bytes)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= bytes;
}

/* Without privileges it stays who it is. */
static int be_nobody_else(void)
{
	uid_t uid = NOBODY_ELSE + (uid_t)getpid();

	if (geteuid() == 0 && setresuid(uid, uid, uid) && errno != EPERM)
		return -errno;
	privileges_keep_none();
	/* Sanitizers look at their own process. */
	return prctl(PR_SET_DUMPABLE, 1);
}

static int open_ring(void)
{
	int ret;

	ret = io_uring_queue_init(8, &t.ring,
				  IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	t.ring_open = !ret;
	if (!ret)
		ret = fixed_open(&t.fixed, &t.ring, t.registry, &t.counters, MAX_IO);
	if (ret) {
		print_message("[  SKIPPED ] no io_uring with a table of fixed buffers here: %d\n",
			      ret);
		return ret;
	}
	fixed_wake(&t.fixed);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	t.memory_fd = memfd_create("client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	t.file_fd = memfd_create("storage", MFD_CLOEXEC);
	assert_int_equal(ftruncate(t.memory_fd, LEN), 0);
	assert_int_equal(ftruncate(t.file_fd, LEN), 0);
	t.base = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, t.memory_fd, 0);
	assert_ptr_not_equal(t.base, MAP_FAILED);
	t.registry = calloc(1, sizeof(*t.registry));
	t.view = (struct buffer_view){ .base = t.base, .len = LEN, .pinnable = true };
	assert_int_equal(registry_publish(t.registry, 7, &t.view), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (t.ring_open)
		io_uring_queue_exit(&t.ring);
	fixed_close(&t.fixed);
	munmap(t.base, LEN);
	close(t.memory_fd);
	close(t.file_fd);
	free(t.registry);
	return 0;
}

static int find(uint64_t at)
{
	int entry = -1;

	for (unsigned long moved = 0; moved < LEN && entry < 0; moved += MAX_IO) {
		fixed_wake(&t.fixed);
		entry = fixed_find(&t.fixed, 7, t.base + at, MAX_IO);
	}
	return entry;
}

static int move(uint8_t opcode, int entry, uint64_t at)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&t.ring);
	struct io_uring_cqe *cqe;
	int res;

	io_uring_prep_rw(opcode, sqe, t.file_fd, t.base + at, MAX_IO, at);
	sqe->buf_index = (uint16_t)entry;
	assert_int_equal(io_uring_submit_and_wait(&t.ring, 1), 1);
	assert_int_equal(io_uring_peek_cqe(&t.ring, &cqe), 0);
	res = cqe->res;
	io_uring_cqe_seen(&t.ring, cqe);
	return res;
}

static void what_is_withdrawn_is_pinned_no_more(void **state)
{
	(void)state;
	if (!limit_allows(PINNED) || open_ring())
		skip();
	for (size_t i = 0; i < LEN; i++)
		t.base[i] = (uint8_t)(i * 7 >> 9);
	for (uint64_t at = 0; at < LEN; at += MAX_IO)
		assert_int_equal(move(IORING_OP_WRITE_FIXED, find(at), at), MAX_IO);
	assert_true(pinned_kib() >= LEN / 1024);
	/* The client gives its pages back; the ring has them still, and so has a request. */
	assert_int_equal(fallocate(t.memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LEN),
			 0);
	assert_int_equal(move(IORING_OP_READ_FIXED, find(0), 0), MAX_IO);
	assert_int_equal(allocated(), 0);
	registry_withdraw(t.registry, 7);
	while (!fixed_wake(&t.fixed))
		;
	assert_true(fixed_let_go(&t.fixed) == registry_withdrawals(t.registry));
	assert_int_equal(pinned_kib(), 0);
	assert_int_equal(find(0), -1);
	for (size_t i = 0; i < LEN; i++) {
		uint8_t byte;

		i += 4095;
		assert_int_equal(pread(t.file_fd, &byte, 1, (off_t)i), 1);
		assert_int_equal(byte, (uint8_t)(i * 7 >> 9));
	}
}

static void a_missing_page_is_not_made(void **state)
{
	void *at;
	int guard;

	(void)state;
	if (!guard_works() || !limit_allows(PINNED) || open_ring())
		skip();
	munmap(t.base, LEN);
	assert_int_equal(guard_map(t.memory_fd, 0, LEN, PROT_READ | PROT_WRITE, &at, &guard), 0);
	assert_int_equal(guard, 0);
	t.base = t.view.base = at;
	assert_int_equal(fallocate(t.memory_fd, 0, 0, 5 * MIB), 0);
	assert_true(find(0) >= 0);
	assert_int_equal(find(4 * MIB), -1); /* its piece is longer than what there is */
	assert_int_equal(find(6 * MIB), -1);
	assert_int_equal(allocated(), 5 * MIB);
	assert_int_equal(counter_get(&t.counters.fixed_refused), 0);
}

static void a_limit_is_no_error(void **state)
{
	const struct rlimit limit = { 6 * MIB, 6 * MIB }; /* not for the second piece */
	uint64_t said = 0;

	(void)state;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	assert_false(privileges_may_pin(&said));
	assert_int_equal(said, limit.rlim_cur);
	if (open_ring())
		skip();
	memset(t.base, 1, LEN);
	assert_true(find(0) >= 0);
	/* Refused, once, and all goes on. */
	for (uint64_t at = 4 * MIB; at < LEN; at += MIB)
		assert_int_equal(find(at), -1);
	assert_int_equal(counter_get(&t.counters.fixed_refused), 1);
	assert_true(find(MIB) >= 0);
	assert_int_equal(move(IORING_OP_WRITE, 0, 5 * MIB), MAX_IO);
}

/* What a ring has pinned counts for a moment after its process has ended: so each has its own. */
static int run_alone(const struct CMUnitTest *test)
{
	const struct CMUnitTest tests[] = { *test };
	int status;
	pid_t pid = fork();

	if (!pid)
		exit(be_nobody_else() ? 1 : cmocka_run_group_tests(tests, NULL, NULL));
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(a_limit_is_no_error),
		T(what_is_withdrawn_is_pinned_no_more),
		T(a_missing_page_is_not_made),
	};
	int failed = 0;

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		failed += run_alone(&tests[i]);
	return failed;
}
