/* SPDX-License-Identifier: MIT */
/*
 * test_nbd_lost.c - the engine nbd with servers that die, lie and are silent: nothing wrong is
 * read, nothing that was acknowledged is lost without a word, and everything ends.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fixture.h"

#define LEN 65536U

static uint8_t wrote[LEN], newer[LEN], got[LEN];

/* A write and a read with the trick in them; both end well. */
static void survives(enum fake_trick trick)
{
	fill(wrote, LEN, trick + 10);
	fake_trick(trick);
	assert_int_equal(do_io(UBLKZC_WRITE, LEN, wrote, LEN), 0);
	assert_memory_equal(fake_bytes() + LEN, wrote, LEN);
	memset(got, 0, LEN);
	fake_trick(trick);
	assert_int_equal(do_io(UBLKZC_READ, LEN, got, LEN), 0);
	assert_memory_equal(got, wrote, LEN);
}

static void a_connection_that_is_lost_is_made_anew(void **state)
{
	(void)state;
	assert_int_equal(host_open(uri, "cache=durable", NULL), 0);
	survives(FAKE_CUT_BEFORE);
	survives(FAKE_CUT_AFTER);
	survives(FAKE_CUT_IN_REPLY);
	assert_int_equal(fake_connections(), 1 + 6);
	host_close();
}

static void nonsense_ends_a_connection_and_no_more(void **state)
{
	(void)state;
	assert_int_equal(host_open(uri, NULL), 0);
	survives(FAKE_NONSENSE);
	survives(FAKE_STRANGER);
	survives(FAKE_STRUCTURED);
	survives(FAKE_TWICE);
	survives(FAKE_TRICKLE);
	/* It was alive all the time: nothing is in doubt. */
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_close();
}

/* Many requests at once, and something is wrong with one after the other, now and then. */
static void whatever_it_does_what_is_read_was_written(void **state)
{
	static const enum fake_trick tricks[] = {
		FAKE_NONE,    FAKE_NONSENSE,  FAKE_STRANGER,	 FAKE_STRUCTURED, FAKE_TWICE,
		FAKE_TRICKLE, FAKE_CUT_AFTER, FAKE_CUT_IN_REPLY, FAKE_CUT_BEFORE,
	};
	static uint8_t data[8][4096], read[8][4096];
	unsigned int seed = 1;

	(void)state;
	assert_int_equal(host_open(uri, "cache=durable", "connections=2", NULL), 0);
	for (unsigned int round = 0; round < 24; round++) {
		struct task tasks[16];
		enum ublkzc_op op = round % 2 ? UBLKZC_READ : UBLKZC_WRITE;

		for (unsigned int i = 0; i < 8; i++) {
			if (op == UBLKZC_WRITE)
				fill(data[i], 4096, round * 8 + i);
			memset(read[i], 0, 4096);
			begin(&tasks[i], op, i * 4096, op == UBLKZC_READ ? read[i] : data[i], 4096,
			      1);
			if (i % 3 == 0)
				fake_trick(
					tricks[rand_r(&seed) % (sizeof(tricks) / sizeof(*tricks))]);
		}
		for (unsigned int i = 0; i < 8; i++) {
			assert_true(await(&tasks[i], 60));
			assert_int_equal(tasks[i].res, 0);
			assert_memory_equal(op == UBLKZC_READ ? read[i] : fake_bytes() + i * 4096,
					    data[i], 4096);
		}
	}
	host_close();
}

static void who_greets_with_nonsense_is_not_taken(void **state)
{
	struct fake_options other = all;

	(void)state;
	other.greeting = FAKE_GIBBERISH;
	fake_stop(false);
	fake_restart(&other);
	assert_true(host_open(uri, NULL) < 0);
	fake_stop(false);
	fake_restart(&all);
	assert_int_equal(host_open(uri, "cache=durable", NULL), 0);
	for (other.greeting = FAKE_GIBBERISH; other.greeting <= FAKE_HANGS_UP; other.greeting++) {
		struct task t;

		fill(wrote, LEN, other.greeting);
		fake_stop(false);
		fake_restart(&other);
		begin(&t, UBLKZC_WRITE, 0, wrote, LEN, 1);
		run(1500);
		assert_false(t.done);
		fake_stop(false);
		fake_restart(&all);
		assert_true(await(&t, 60));
		assert_int_equal(t.res, 0);
		assert_memory_equal(fake_bytes(), wrote, LEN);
	}
	host_close();
}

static void a_server_that_is_about_to_end_is_left(void **state)
{
	(void)state;
	assert_int_equal(host_open(uri, "cache=durable", NULL), 0);
	fake_error = 108; /* ESHUTDOWN */
	survives(FAKE_ERROR);
	host_close();
}

static void requests_wait_for_a_server(void **state)
{
	struct task tasks[8];
	static uint8_t data[8][4096];

	(void)state;
	assert_int_equal(host_open(uri, "connections=2", NULL), 0);
	fake_stop(false);
	for (unsigned int i = 0; i < 8; i++) {
		fill(data[i], 4096, i);
		begin(&tasks[i], UBLKZC_WRITE, i * 4096, data[i], 4096, 1);
	}
	run(1500);
	for (unsigned int i = 0; i < 8; i++)
		assert_false(tasks[i].done);
	fake_restart(&all);
	for (unsigned int i = 0; i < 8; i++) {
		assert_true(await(&tasks[i], 60));
		assert_int_equal(tasks[i].res, 0);
		assert_memory_equal(fake_bytes() + i * 4096, data[i], 4096);
	}
	host_close();
}

static void but_not_for_ever(void **state)
{
	struct task t;

	(void)state;
	assert_int_equal(host_open(uri, "dead-timeout=1", "cache=durable", NULL), 0);
	fake_stop(false);
	begin(&t, UBLKZC_WRITE, 0, wrote, LEN, 1);
	assert_true(await(&t, 60));
	assert_int_equal(t.res, -EIO);
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), -EIO); /* at once */
	fake_restart(&all);
	for (unsigned int i = 0; i < 600 && do_io(UBLKZC_READ, 0, got, LEN); i++)
		run(100);
	survives(FAKE_NONE);
	host_close();
}

/* ---- what was acknowledged and not flushed ---- */

static void power_cut(void)
{
	fake_stop(true);
	run(200);
	fake_restart(&all);
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), 0);
}

static void a_flush_says_that_writes_are_lost(void **state)
{
	(void)state;
	fill(wrote, LEN, 1);
	assert_int_equal(host_open(uri, "connections=3", NULL), 0);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), 0);
	power_cut();
	assert_memory_not_equal(got, wrote, LEN);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), -EIO);
	/* That was said; what is written now is stable. */
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), 0);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	power_cut();
	assert_memory_equal(got, wrote, LEN);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_close();
}

/* Asked of a server that dies before it answers: its successor's answer is no promise. */
static void a_flush_that_was_under_way_says_it_too(void **state)
{
	struct task flush;

	(void)state;
	assert_int_equal(host_open(uri, NULL), 0);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), 0);
	fake_trick(FAKE_CUT_BEFORE);
	begin(&flush, UBLKZC_FLUSH, 0, NULL, 0, 0);
	assert_true(await(&flush, 60));
	assert_int_equal(flush.res, -EIO);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_close();
}

static void who_keeps_writes_need_not_say_anything(void **state)
{
	(void)state;
	assert_int_equal(host_open(uri, "cache=durable", NULL), 0);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), 0);
	fake_stop(false);
	fake_restart(&all);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_close();
}

static void written_through_is_never_lost(void **state)
{
	(void)state;
	fill(wrote, LEN, 2);
	assert_int_equal(host_open(uri, "cache=writethrough", NULL), 0);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), 0);
	power_cut();
	assert_memory_equal(got, wrote, LEN);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_close();
}

/* ---- what comes late ---- */

/*
 * The server has a write and does not do it; then the connection is lost for another reason.  It
 * does the write when it notices: which must be before the write is done again, and before anything
 * newer is.
 */
static void nothing_comes_after_what_is_newer(void **state)
{
	struct task kept;

	(void)state;
	fill(wrote, LEN, 1);
	fill(newer, LEN, 2);
	assert_int_equal(host_open(uri, "timeout=1", "cache=durable", NULL), 0);
	fake_trick(FAKE_SILENT);
	begin(&kept, UBLKZC_WRITE, 0, wrote, LEN, 1);
	assert_true(await(&kept, 60));
	assert_int_equal(kept.res, 0);
	assert_true(fake_count(WRITE) > 1);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, newer, LEN), 0);
	run(1000);
	assert_memory_equal(fake_bytes(), newer, LEN);
	host_close();
}

static void a_late_answer_is_no_loss(void **state)
{
	struct task t;

	(void)state;
	fill(wrote, LEN, 4);
	assert_int_equal(host_open(uri, NULL), 0);
	fake_trick(FAKE_SILENT);
	begin(&t, UBLKZC_WRITE, 0, wrote, LEN, 1);
	run(1500);
	assert_false(t.done);
	fake_answer();
	assert_true(await(&t, 60));
	assert_int_equal(t.res, 0);
	assert_int_equal(fake_connections(), 1);
	host_close();
}

static void a_successor_waits_for_what_the_dead_one_asked(void **state)
{
	struct task kept;

	(void)state;
	fill(wrote, LEN, 1);
	fill(newer, LEN, 2);
	assert_int_equal(host_open(uri, "connections=2", NULL), 0);
	fake_trick(FAKE_SILENT);
	begin(&kept, UBLKZC_WRITE, 0, wrote, LEN, 1);
	for (unsigned int i = 0; i < 600 && !fake_count(WRITE); i++)
		run(100);
	assert_int_equal(fake_count(WRITE), 1);
	host_die();
	assert_int_equal(host_open(uri, "connections=2", NULL), 0);
	assert_memory_equal(fake_bytes(), wrote, LEN); /* it has come, and nothing can come later */
	assert_int_equal(do_io(UBLKZC_WRITE, 0, newer, LEN), 0);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	assert_memory_equal(fake_bytes(), newer, LEN);
	host_close();
}

static void a_successor_of_whose_server_died_says_so(void **state)
{
	(void)state;
	assert_int_equal(host_open(uri, NULL), 0);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), 0);
	host_die();
	fake_stop(true);
	fake_restart(&all);
	assert_int_equal(host_open(uri, NULL), 0);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), -EIO);
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	host_close();
}

/* ---- others ---- */

static void another_export_is_not_taken_for_it(void **state)
{
	struct fake_options smaller = all;

	(void)state;
	smaller.size /= 2;
	assert_int_equal(host_open(uri, "dead-timeout=2", "cache=durable", NULL), 0);
	fake_stop(false);
	fake_restart(&smaller);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, LEN), -EIO);
	assert_int_equal(fake_count(WRITE), 0);
	fake_stop(false);
	fake_restart(&all);
	for (unsigned int i = 0; i < 600 && do_io(UBLKZC_READ, 0, got, LEN); i++)
		run(100);
	survives(FAKE_NONE);
	host_close();
}

/* A client can take away the memory of its request. */
static void memory_that_is_gone_is_no_server_s_fault(void **state)
{
	uint8_t *memory =
		mmap(NULL, 2 * LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct task bad, good;

	(void)state;
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(munmap(memory + LEN, LEN), 0);
	assert_int_equal(host_open(uri, "cache=durable", NULL), 0);
	for (unsigned int op = UBLKZC_READ; op <= UBLKZC_WRITE; op++) {
		fill(wrote, LEN, op);
		begin(&bad, op, 0, memory + LEN / 2, LEN, 1);
		begin(&good, UBLKZC_WRITE, LEN, wrote, LEN, 1);
		assert_true(await(&bad, 60) && await(&good, 60));
		assert_int_equal(bad.res, -EFAULT);
		assert_int_equal(good.res, 0);
		assert_memory_equal(fake_bytes() + LEN, wrote, LEN);
	}
	host_close();
	munmap(memory, LEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT(a_connection_that_is_lost_is_made_anew),
		UNIT(nonsense_ends_a_connection_and_no_more),
		UNIT(whatever_it_does_what_is_read_was_written),
		UNIT(who_greets_with_nonsense_is_not_taken),
		UNIT(a_server_that_is_about_to_end_is_left),
		UNIT(requests_wait_for_a_server),
		UNIT(but_not_for_ever),
		UNIT(a_flush_says_that_writes_are_lost),
		UNIT(a_flush_that_was_under_way_says_it_too),
		UNIT(who_keeps_writes_need_not_say_anything),
		UNIT(written_through_is_never_lost),
		UNIT(nothing_comes_after_what_is_newer),
		UNIT(a_late_answer_is_no_loss),
		UNIT(a_successor_waits_for_what_the_dead_one_asked),
		UNIT(a_successor_of_whose_server_died_says_so),
		UNIT(another_export_is_not_taken_for_it),
		UNIT(memory_that_is_gone_is_no_server_s_fault),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
