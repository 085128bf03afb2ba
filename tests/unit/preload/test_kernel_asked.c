/* SPDX-License-Identifier: MIT */
/* What the shim asks the kernel: mappings, witnesses, pins; and what it remembers. */
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/blocks.h"
#include "preload/config.h"
#include "preload/fork.h"
#include "preload/fork_steps.h"
#include "preload/lock.h"
#include "preload/mappings.h"
#include "preload/marks.h"
#include "preload/pins.h"
#include "preload/regions.h"
#include "preload/shim.h"
#include "preload/vmas.h"
#include "preload/witness.h"
#include "tests/unit/cmocka_all.h"

#define PAGE 4096UL
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static int setup(void **state)
{
	char *none = NULL;

	(void)state;
	config_read(&none, &config);
	shim.mmap_min = PAGE;
	shim.on = true;
	return 0;
}

/* ---- marks ---- */

struct seen {
	unsigned int nr;
	size_t bytes;
};

static void see(void *addr, size_t len, void *arg)
{
	struct seen *s = arg;

	(void)addr;
	s->nr++;
	s->bytes += len;
}

static struct seen marked(enum mark mark)
{
	struct seen s = { 0 };

	marks_each(mark, (void *)PAGE, 100 * PAGE, see, &s);
	return s;
}

static void marks_are_cut_and_joined(void **state)
{
	char *at = (char *)(10 * PAGE);

	(void)state;
	assert_true(marks_set(MARK_WIPE, at, PAGE));
	assert_true(marks_set(MARK_WIPE, at + PAGE, PAGE));
	assert_int_equal(marked(MARK_WIPE).nr, 1);
	assert_true(marks_set(MARK_WIPE, at + 5 * PAGE, PAGE));
	assert_true(marks_set(MARK_DONTFORK, at, 10 * PAGE));
	assert_int_equal(marked(MARK_WIPE).nr, 2);
	assert_int_equal(marked(MARK_WIPE).bytes, 3 * PAGE);
	assert_true(marks_clear(MARK_DONTFORK, at + 2 * PAGE, PAGE)); /* in the middle */
	assert_int_equal(marked(MARK_DONTFORK).nr, 2);
	assert_int_equal(marked(MARK_DONTFORK).bytes, 9 * PAGE);
	assert_true(marks_any(MARK_DONTFORK, at, PAGE));
	assert_false(marks_any(MARK_DONTFORK, at + 2 * PAGE, PAGE));
	marks_move(at, at + 50 * PAGE, 3 * PAGE);
	assert_int_equal(marked(MARK_WIPE).bytes, 3 * PAGE);
	assert_false(marks_any(MARK_WIPE, at, 3 * PAGE));
	assert_true(marks_any(MARK_WIPE, at + 50 * PAGE, PAGE));
	marks_clear_all(at, 80 * PAGE);
	assert_int_equal(marked(MARK_WIPE).nr + marked(MARK_DONTFORK).nr, 0);
}

static void marks_say_when_they_are_full(void **state)
{
	unsigned int nr = 0;

	(void)state;
	while (nr <= MARKS_MAX && marks_set(MARK_WIPE, (void *)(PAGE + nr * 2 * PAGE), PAGE))
		nr++;
	assert_int_equal(nr, MARKS_MAX);
	assert_true(marks_set(MARK_WIPE, (void *)(2 * PAGE), PAGE)); /* joins two */
	marks_reset();
	assert_int_equal(marked(MARK_WIPE).nr, 0);
}

/* ---- vmas ---- */

struct found {
	unsigned int nr;
	struct vma v[8];
};

static bool note(const struct vma *v, void *arg)
{
	struct found *f = arg;

	if (f->nr < 8)
		f->v[f->nr++] = *v;
	return true;
}

static struct found ask(const void *addr, size_t len)
{
	struct found f = { 0 };

	assert_int_equal(vmas_each(addr, len, note, &f), 0);
	return f;
}

static void the_kernel_tells_what_is_ours(void **state)
{
	char *p = mapping_new(NULL, 8 * PAGE, RW, ANON);
	char *theirs = mmap(NULL, 8 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct found f;

	(void)state;
	assert_non_null(p);
	assert_int_equal(ask(theirs, 8 * PAGE).nr, 0);
	f = ask(p + PAGE, 2 * PAGE); /* clipped */
	assert_int_equal(f.nr, 1);
	assert_ptr_equal(f.v[0].start, p + PAGE);
	assert_int_equal(f.v[0].len, 2 * PAGE);
	assert_true(f.v[0].shared);
	assert_int_equal(f.v[0].prot, RW);
	/* By system calls that no wrapper sees. */
	assert_int_equal(syscall(SYS_munmap, p + 2 * PAGE, PAGE), 0);
	assert_int_equal(syscall(SYS_mprotect, p + 5 * PAGE, PAGE, PROT_READ), 0);
	f = ask(p, 8 * PAGE);
	assert_int_equal(f.nr, 4);
	assert_int_equal(f.v[1].start - p, 3 * PAGE);
	assert_int_equal(f.v[1].offset - f.v[0].offset, 3 * PAGE);
	assert_int_equal(f.v[2].prot, PROT_READ);
	assert_int_equal(mapping_unmap(p, 8 * PAGE), 0);
	assert_int_equal(ask(p, 8 * PAGE).nr, 0);
	munmap(theirs, 8 * PAGE);
}

/* What lies elsewhere by a raw mremap is not given back while it is mapped. */
static void what_was_moved_behind_our_back_lives_on(void **state)
{
	char *p = mapping_new(NULL, 4 * PAGE, RW, ANON);
	char *q;

	(void)state;
	memset(p, 7, 4 * PAGE);
	q = (char *)syscall(SYS_mremap, p, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
			    NULL);
	assert_ptr_not_equal(q, MAP_FAILED);
	assert_int_equal(mapping_unmap(p, 4 * PAGE), 0);
	assert_true(blocks_lock_within(1000));
	regions_look();
	blocks_unlock();
	for (size_t i = 0; i < 4 * PAGE; i++)
		assert_int_equal(q[i], 7);
	munmap(q, 4 * PAGE);
}

/* ---- witness ---- */

static bool gone(void)
{
	bool ret;

	assert_true(lock_take_within(1000));
	ret = witness_gone();
	lock_drop();
	return ret;
}

static void a_witness_is_seen_until_it_ends(void **state)
{
	int go[2], up[2];
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(up), 0);
	assert_true(witness_start());
	assert_true(witness_active());
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0) { /* a grandchild outlives it */
			syscall(SYS_close_range, 10, ~0U, 0);
			_exit(read(go[0], &byte, 1) == 1 && write(up[1], "", 1) == 1 ? 0 : 1);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_false(gone());
	assert_true(witness_active());
	assert_int_equal(write(go[1], "", 1), 1);
	assert_int_equal(read(up[0], &byte, 1), 1);
	for (int i = 0; i < 5000 && !gone(); i++)
		usleep(1000);
	assert_false(witness_active());
}

/* ---- pins ---- */

static void what_may_pin_is_seen(void **state)
{
	int direct = open("/proc/self/exe", O_RDONLY);
	int harmless = eventfd(0, 0);
	int ring;

	(void)state;
	assert_null(pins_by_whom());
#ifdef SYS_io_uring_setup
	{
		unsigned int params[30] = { 0 }; /* struct io_uring_params: 120 bytes */

		ring = (int)syscall(SYS_io_uring_setup, 1, params);
		if (ring >= 0) { /* it may be forbidden */
			assert_non_null(pins_by_whom());
			close(ring);
			assert_null(pins_by_whom());
		}
	}
#endif
	{
		unsigned long context = 0;

		if (syscall(SYS_io_setup, 1, &context) == 0) {
			assert_non_null(pins_by_whom()); /* it has no descriptor */
			syscall(SYS_io_destroy, context);
			assert_null(pins_by_whom());
		}
	}
	{
		int plain = socket(AF_UNIX, SOCK_STREAM, 0);
		int packets = socket(AF_XDP, SOCK_RAW, 0);

		assert_true(plain >= 0);
		if (packets >= 0) { /* it may be forbidden, or the kernel has none */
			assert_non_null(pins_by_whom());
			close(packets);
		}
		assert_null(pins_by_whom());
		close(plain);
	}
	close(direct);
	close(harmless);
}

static void *sit(void *arg)
{
	char byte;

	assert_int_equal(read(*(int *)arg, &byte, 1), 1);
	return NULL;
}

/* Another thread may be in a read right now. */
static void direct_io_of_threads_is_seen(void **state)
{
	char path[] = "/tmp/test-pins-XXXXXX";
	int file = mkstemp(path);
	int direct = open(path, O_RDWR | O_DIRECT);
	pthread_t thread;
	int go[2];

	(void)state;
	unlink(path);
	close(file);
	if (direct < 0)
		return; /* a file system without */
	assert_null(pins_by_whom());
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pthread_create(&thread, NULL, sit, &go[0]), 0);
	assert_non_null(pins_by_whom());
	assert_int_equal(write(go[1], "", 1), 1);
	pthread_join(thread, NULL);
	close(direct);
	close(go[0]);
	close(go[1]);
}

/* ---- private before a fork ---- */

static atomic_int *word;

static void *wait_for_word(void *arg)
{
	(void)arg;
	while (!atomic_load(word))
		syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
	return NULL;
}

static bool waits(void)
{
	/* The other thread is in the call when nothing more happens. */
	usleep(200000);
	return !atomic_load(word);
}

static void who_waits_on_a_futex_is_not_forgotten(void **state)
{
	pthread_t thread;

	(void)state;
	word = block_alloc(PAGE, PAGE, true);
	assert_non_null(word);
	assert_int_equal(pthread_create(&thread, NULL, wait_for_word, NULL), 0);
	assert_true(waits());
	assert_true(blocks_lock_within(1000));
	assert_true(fork_make_private());
	blocks_unlock();
	assert_false(ask(word, PAGE).v[0].shared);
	atomic_store(word, 1);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
	pthread_join(thread, NULL);
	block_free(word);
}

/* Rewritten memory is there once, when no child is left that sees what it was. */
static void what_is_there_twice_is_given_back(void **state)
{
	size_t len = 8UL << 20;
	char *p = block_alloc(len, PAGE, false);
	struct memfile file;

	(void)state;
	memset(p, 1, len);
	file = arena_of(p)->file;
	assert_true(memfile_resident(&file, 0) >= len);
	assert_true(blocks_lock_within(1000));
	assert_true(fork_make_private());
	blocks_unlock();
	memset(p, 2, len / 2);
	assert_true(blocks_lock_within(1000));
	fork_tidy_private();
	blocks_unlock();
	assert_true(memfile_resident(&file, 0) < len * 3 / 4);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(p[i], i < len / 2 ? 2 : 1);
	block_free(p);
}

/* What a parent unmaps, its child may still need. */
static void a_child_keeps_what_its_parent_unmaps(void **state)
{
	size_t len = 64 * PAGE;
	char *p = mapping_new(NULL, len, RW, ANON);
	int go[2], status;
	char byte;
	pid_t pid;

	(void)state;
	assert_non_null(p);
	memset(p, 5, len);
	assert_int_equal(pipe(go), 0);
	assert_true(blocks_lock_within(1000));
	assert_true(fork_make_private());
	blocks_unlock();
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		size_t i = 0;

		if (read(go[0], &byte, 1) == 1)
			while (i < len && p[i] == 5)
				i++;
		_exit(i < len);
	}
	assert_int_equal(mapping_unmap(p, len), 0);
	assert_true(blocks_lock_within(1000));
	regions_look();
	blocks_unlock();
	assert_int_equal(write(go[1], "", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(blocks_lock_within(1000));
	regions_look(); /* and now it is given back */
	blocks_unlock();
	for (unsigned int i = 0; i < arena_slots; i++)
		assert_false(arenas[i].pool);
	close(go[0]);
	close(go[1]);
}

/* What a program may expect of a fork where there is no /proc. */
static int fork_without_proc(const char *root, int *shared, char *p)
{
	int go[2];
	char byte;
	pid_t pid;

	if (chroot(root) < 0 || chdir("/") < 0)
		return 1;
	syscall(SYS_close_range, 3, ~0U, 0);
	if (vmas_can_ask() || pipe(go) < 0)
		return 2;
	(void)shared;
	fork_prepare();
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		fork_child();
		memset(p, 3, 4 * PAGE);
		_exit(read(go[0], &byte, 1) == 1 && p[PAGE] == 3 ? 0 : 1);
	}
	fork_parent();
	memset(p, 4, 4 * PAGE);
	if (write(go[1], "", 1) != 1 || waitpid(pid, shared, 0) != pid || *shared || p[0] != 4)
		return 3;
	return mapping_new(NULL, 8 * PAGE, RW, ANON) ? 4 : 0;
}

static void forks_are_repaired_without_proc(void **state)
{
	char root[] = "/tmp/test-kernel-asked-XXXXXX";
	char *p = block_alloc(4 * PAGE, PAGE, true);
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0) {
		block_free(p);
		return; /* chroot is root's */
	}
	assert_non_null(mkdtemp(root));
	fork_prepare();
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		fork_child();
		block_free(p);
		p = block_alloc(4 * PAGE, PAGE, true);
		memset(p, 1, 4 * PAGE);
		_exit(fork_without_proc(root, &status, p));
	}
	fork_parent();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	rmdir(root);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	block_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks_are_cut_and_joined),
		cmocka_unit_test(marks_say_when_they_are_full),
		cmocka_unit_test(the_kernel_tells_what_is_ours),
		cmocka_unit_test(what_was_moved_behind_our_back_lives_on),
		cmocka_unit_test(a_witness_is_seen_until_it_ends),
		cmocka_unit_test(what_may_pin_is_seen),
		cmocka_unit_test(direct_io_of_threads_is_seen),
		cmocka_unit_test(who_waits_on_a_futex_is_not_forgotten),
		cmocka_unit_test(what_is_there_twice_is_given_back),
		cmocka_unit_test(a_child_keeps_what_its_parent_unmaps),
		cmocka_unit_test(forks_are_repaired_without_proc),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
