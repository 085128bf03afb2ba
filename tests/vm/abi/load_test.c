/* SPDX-License-Identifier: MIT */
/* load_test.c - registering, unregistering and deleting while there is I/O. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

static void settle(const struct unreg_call *call)
{
	for (int i = 0; i < 100 && call->res == 1; i++)
		usleep(20000);
}

static void unregistering_waits_for_requests_in_the_buffer(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(8);
	struct unreg_call used = { .s = &s, .index = 0, .res = 1 };
	struct unreg_call other = { .s = &s, .index = 1, .res = 1 };
	struct read_call read = { .s = &s, .buf = p, .len = PAGE };
	pthread_t reader, first, second;

	(void)state;
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	memset(p, 0x22, PAGE);
	s.hold = true;
	pthread_create(&reader, NULL, read_thread, &read);
	while (!s.nr_held)
		usleep(1000);
	pthread_create(&second, NULL, unreg_thread, &other);
	settle(&other);
	print_message("unregistering another buffer %s for this one's request\n",
		      other.res == 1 ? "waits (stock)" : "does not wait");
	if (is_ours()) {
		assert_int_equal(other.res, 0);
		pthread_create(&first, NULL, unreg_thread, &used);
		usleep(300000);
		assert_int_equal(used.res, 1); /* the request is still in it */
		/* registering goes on as well */
		assert_int_equal(abi_reg(&s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	}
	s.hold = false;
	pthread_join(reader, NULL);
	pthread_join(second, NULL);
	assert_int_equal(other.res, 0);
	if (!is_ours())
		pthread_create(&first, NULL, unreg_thread, &used);
	pthread_join(first, NULL);
	assert_int_equal(used.res, 0);
	assert_int_equal(read.res, PAGE);
	assert_int_equal(p[0], 0x22);
	abi_del(&s);
	munmap(p, 8 * PAGE);
	assert_nothing_pinned();
}

#define STRESS_PAGES 64U
#define STRESS_ROUNDS 150

struct stress {
	struct abi_server *s;
	uint8_t *pages;
	atomic_bool *stop;
	unsigned int rounds;
	int error;
};

static void *stress_register(void *arg)
{
	struct stress *st = arg;

	while (st->rounds-- && !st->error) {
		int index = abi_reg(st->s, st->pages, STRESS_PAGES * PAGE, 0);

		if (index < 0)
			st->error = index;
		else
			st->error = abi_unreg(st->s, (unsigned int)index);
	}
	return NULL;
}

static void *stress_read(void *arg)
{
	struct stress *st = arg;
	unsigned int at = 0;

	while (!*st->stop && !st->error) {
		at = (at * 5 + 1) % (STRESS_PAGES - 4);
		if (pread(st->s->disk_fd, st->pages + at * PAGE, 4 * PAGE, ABI_TEST_OFFSET) !=
		    4 * PAGE)
			st->error = -errno;
	}
	return NULL;
}

static void registering_under_load_loses_nothing(void **state)
{
	struct abi_server s;
	atomic_bool stop = false;
	struct stress st[4];
	pthread_t threads[4];

	(void)state;
	add_zc(&s);
	s.pages_per_buffer = STRESS_PAGES;
	abi_start(&s);
	for (int i = 0; i < 4; i++) {
		/* registrar 0 works on reader 2's memory, 1 on 3's */
		st[i] = (struct stress){ .s = &s,
					 .pages = i < 2 ? shared_pages(STRESS_PAGES)
							: st[i - 2].pages,
					 .stop = &stop,
					 .rounds = STRESS_ROUNDS };
	}
	for (int i = 3; i >= 0; i--)
		pthread_create(&threads[i], NULL, i < 2 ? stress_register : stress_read, &st[i]);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	stop = true;
	pthread_join(threads[2], NULL);
	pthread_join(threads[3], NULL);
	for (int i = 0; i < 4; i++)
		assert_int_equal(st[i].error, 0);
	print_message("%llu requests matched, %llu were copied\n", s.nr_matched, s.nr_copied);
	assert_true(s.nr_matched > 0);
	assert_true(s.nr_copied > 0);
	assert_int_equal(s.bad_index, 0);
	abi_del(&s);
	for (int i = 0; i < 2; i++)
		munmap(st[i].pages, STRESS_PAGES * PAGE);
	assert_nothing_pinned();
}

static void deleting_a_device_releases_its_buffers(void **state)
{
	struct abi_server s;
	char *p = shared_pages(300);

	(void)state;
	add_zc(&s);
	abi_start(&s);
	for (int i = 0; i < 3; i++)
		assert_int_equal(abi_reg(&s, p + i * 100 * PAGE, 100 * PAGE, 0), i);
	assert_true(pinned() >= 300);
	abi_del(&s);
	munmap(p, 300 * PAGE);
	assert_nothing_pinned();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unregistering_waits_for_requests_in_the_buffer),
		cmocka_unit_test(registering_under_load_loses_nothing),
		cmocka_unit_test(deleting_a_device_releases_its_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
