/* SPDX-License-Identifier: MIT */
/*
 * hints_test.c - the driver says where requests were that did not match (UAPI_F_SHMEM_HINTS, of
 * kernel-patch/), while it is asked.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "foreign.h"

#define MEM (64 * PAGE)
#define MOST 1024U /* more than the driver keeps */

static struct uapi_shmem_hint hints[MOST];

static int ask(struct foreign *f, uint64_t seconds, unsigned int nr)
{
	return abi_command(&f->s, UAPI_CMD_HINTS, f->s.device, (uintptr_t)hints,
			   (uint16_t)(nr * sizeof(*hints)), seconds);
}

/* Of the peer's memory there. */
static const struct uapi_shmem_hint *hint_of(const struct foreign *f, int nr, size_t at)
{
	for (int i = 0; i < nr; i++)
		if (hints[i].addr == (uintptr_t)f->peer->mem + at)
			return &hints[i];
	return NULL;
}

static void nothing_is_told_before_it_is_asked_for(void **state)
{
	struct foreign *f = foreign_start(MEM);

	(void)state;
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(ask(f, 0, MOST), 0);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(ask(f, 100, MOST), 0);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_true(ask(f, 0, MOST) > 0);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(ask(f, 0, MOST), 0);
	foreign_end(f);
}

static void a_hint_says_who_where_and_how_often(void **state)
{
	struct foreign *f = foreign_start(MEM);
	const struct uapi_shmem_hint *hint;
	int nr;

	(void)state;
	assert_int_equal(ask(f, 100, MOST), 0);
	for (int i = 0; i < 5; i++)
		assert_false(foreign_read_in_place(f, 8 * PAGE, 4 * PAGE));
	assert_false(foreign_write_in_place(f, 20 * PAGE + 512, 1024));
	nr = ask(f, 100, MOST);
	assert_true(nr >= 2);
	hint = hint_of(f, nr, 8 * PAGE);
	assert_non_null(hint);
	assert_int_equal(hint->pid, f->peer->pid);
	assert_int_equal(hint->len, 4 * PAGE);
	assert_int_equal(hint->nr, 5);
	assert_int_equal(hint->flags, UAPI_HINT_PRIVATE);
	hint = hint_of(f, nr, 20 * PAGE + 512);
	assert_non_null(hint);
	assert_int_equal(hint->len, 1024);
	assert_int_equal(hint->nr, 1);
	assert_int_equal(hint->pid, f->peer->pid);
	/* they are taken */
	assert_int_equal(ask(f, 100, MOST), 0);
	/* what a hint says can be registered, and is no hint then */
	(void)foreign_take(f, 8 * PAGE, 4 * PAGE);
	assert_true(foreign_read_in_place(f, 8 * PAGE, 4 * PAGE));
	nr = ask(f, 100, MOST);
	assert_null(hint_of(f, nr, 8 * PAGE));
	foreign_end(f);
}

static void shared_memory_is_told_apart(void **state)
{
	struct foreign *f = foreign_start(MEM);
	uint8_t *shared = shared_pages(8);
	bool found = false;
	int nr;

	(void)state;
	memset(shared, 1, 8 * PAGE);
	assert_int_equal(ask(f, 100, MOST), 0);
	assert_int_equal(pread(f->s.disk_fd, shared + 3 * PAGE, PAGE, ABI_TEST_OFFSET), PAGE);
	nr = ask(f, 100, MOST);
	for (int i = 0; i < nr; i++)
		if (hints[i].flags == UAPI_HINT_FILE && hints[i].addr == 3 * PAGE &&
		    hints[i].len == PAGE && hints[i].pid == (uint32_t)getpid())
			found = true;
	assert_true(found);
	munmap(shared, 8 * PAGE);
	foreign_end(f);
}

static bool set_scheduler(const struct foreign *f, const char *name)
{
	char path[64];
	bool set;
	int fd;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/scheduler", f->s.device);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	set = fd >= 0 && write(fd, name, strlen(name)) == (ssize_t)strlen(name);
	close(fd);
	return set;
}

static void *read_page(void *arg)
{
	const struct foreign *f = arg;
	uint8_t *page = aligned_alloc(PAGE, PAGE);
	ssize_t done = pread(f->s.disk_fd, page, PAGE, ABI_TEST_OFFSET);

	free(page);
	return (void *)done;
}

/* All tags are taken, so a worker of the kernel hands it over in the end. */
static void who_waited_in_the_scheduler_is_known(void **state)
{
	struct foreign *f = foreign_start(MEM);
	const struct uapi_shmem_hint *hint;
	pthread_t threads[ABI_DEPTH];
	void *done;

	(void)state;
	if (!set_scheduler(f, "mq-deadline")) {
		foreign_end(f);
		print_message("this kernel has no mq-deadline\n");
		skip();
	}
	assert_int_equal(ask(f, 1000, MOST), 0);
	f->s.hold = true;
	for (unsigned int i = 0; i < ABI_DEPTH; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_page, f), 0);
	while (f->s.nr_held < ABI_DEPTH)
		usleep(1000);
	peer_do(f->peer, PEER_BEGIN_READ, 8 * PAGE, PAGE);
	usleep(200000);
	f->s.hold = false;
	assert_int_equal(peer_do(f->peer, PEER_END_READ, 0, 0), PAGE);
	for (unsigned int i = 0; i < ABI_DEPTH; i++) {
		pthread_join(threads[i], &done);
		assert_int_equal((ssize_t)done, PAGE);
	}
	hint = hint_of(f, ask(f, 0, MOST), 8 * PAGE);
	assert_non_null(hint);
	assert_int_equal(hint->pid, f->peer->pid);
	foreign_end(f);
}

/* Many others do not drive out what is frequent, and what there is is bounded. */
static void the_frequent_ones_stay(void **state)
{
	struct foreign *f = foreign_start(2 * MOST * PAGE);
	const struct uapi_shmem_hint *hint;
	int nr;

	(void)state;
	assert_int_equal(ask(f, 1000, MOST), 0);
	for (size_t i = 0; i < 2 * MOST; i++) {
		assert_int_equal(peer_do(f->peer, PEER_READ, i * PAGE, 512), 512);
		assert_int_equal(peer_do(f->peer, PEER_READ, 7 * PAGE, PAGE), PAGE);
	}
	nr = ask(f, 1000, 1);
	assert_int_equal(nr, 1);
	nr = ask(f, 1000, MOST);
	assert_true(nr >= 100 && nr < (int)MOST);
	hint = hint_of(f, nr, 7 * PAGE);
	if (!hint) /* it was the one that was taken first */
		return foreign_end(f);
	assert_true(hint->nr >= MOST && hint->nr <= 2 * MOST);
	foreign_end(f);
}

static void malformed_questions_are_refused(void **state)
{
	struct foreign *f = foreign_start(MEM);

	(void)state;
	assert_int_equal(ask(f, UAPI_HINT_SECONDS_MAX, 1), 0);
	assert_int_equal(ask(f, UAPI_HINT_SECONDS_MAX + 1, 1), -EINVAL);
	assert_int_equal(ask(f, 1, 0), -EINVAL);
	assert_int_equal(abi_command(&f->s, UAPI_CMD_HINTS, f->s.device, (uintptr_t)hints,
				     sizeof(*hints) - 1, 1),
			 -EINVAL);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(abi_command(&f->s, UAPI_CMD_HINTS, f->s.device, 8, sizeof(*hints), 1),
			 -EFAULT);
	foreign_end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_told_before_it_is_asked_for),
		cmocka_unit_test(a_hint_says_who_where_and_how_often),
		cmocka_unit_test(shared_memory_is_told_apart),
		cmocka_unit_test(who_waited_in_the_scheduler_is_known),
		cmocka_unit_test(the_frequent_ones_stay),
		cmocka_unit_test(malformed_questions_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
