/* SPDX-License-Identifier: MIT */
/*
 * foreign_end_test.c - foreign memory (see foreign_test.c) ends when any of it is gone, and then
 * only: no request matches from that moment, those that are in it finish, the server is told, and
 * its mapping is revoked.  The process and its children have exactly what they would have without.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "foreign.h"

#define MEM (64 * PAGE)

/* A buffer of the first half, in which there has been I/O. */
static struct foreign *start_taken(void)
{
	struct foreign *f = foreign_start(MEM);

	assert_int_equal(foreign_take(f, 0, MEM / 2), 0);
	assert_true(foreign_read_in_place(f, 0, MEM / 2));
	assert_true(foreign_is_mapped(f, 0, MEM / 2 - 1));
	return f;
}

static void assert_gone(struct foreign *f)
{
	foreign_wait_ended(f, 0);
	for (size_t at = 0; at < MEM / 2; at += PAGE)
		assert_false(foreign_is_mapped(f, 0, at));
	assert_false(foreign_was_told(f)); /* once */
	/* the index is the server's until it gives it back */
	assert_int_equal(abi_unreg(&f->s, 0), 0);
	assert_int_equal(foreign_flags(f, 0), 0);
	assert_int_equal(abi_unreg(&f->s, 0), -ENOENT);
}

/* ---- while nothing is in flight ---- */

static void discarded_memory_ends_it(void **state)
{
	struct foreign *f = start_taken();

	(void)state;
	peer_with(f->peer, PEER_FILL, 0, MEM, 0x55);
	assert_int_equal(peer_do(f->peer, PEER_DISCARD, 4 * PAGE, PAGE), 0);
	/* at once: nobody has waited for anything */
	assert_true(foreign_flags(f, 0) & UAPI_SHMEM_BUF_ENDED);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 0, 4 * PAGE, 0x55), 1);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 4 * PAGE, PAGE, 0), 1);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 5 * PAGE, MEM - 5 * PAGE, 0x55), 1);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_gone(f);
	/* and comes back, once the process has something there */
	assert_int_equal(foreign_reg(f, 0, MEM / 2), -ENODATA);
	peer_with(f->peer, PEER_TOUCH, 0, MEM / 2, 1);
	assert_int_equal(foreign_take(f, 0, MEM / 2), 0);
	assert_true(foreign_write_in_place(f, 0, MEM / 2));
	foreign_end(f);
}

static void what_is_beside_it_does_not_end_it(void **state)
{
	struct foreign *f = start_taken();

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_DISCARD, MEM / 2, MEM / 2), 0);
	assert_int_equal(peer_do(f->peer, PEER_UNMAP, MEM / 2, MEM / 2), 0);
	assert_int_equal(foreign_flags(f, 0), UAPI_SHMEM_BUF_FOREIGN);
	assert_true(foreign_read_in_place(f, 0, MEM / 2));
	assert_false(foreign_was_told(f));
	foreign_end(f);
}

static void unmapped_memory_ends_it(void **state)
{
	struct foreign *f = start_taken();

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_UNMAP, MEM / 2 - PAGE, PAGE), 0);
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_gone(f);
	foreign_end(f);
}

static void moved_memory_ends_it(void **state)
{
	struct foreign *f = start_taken();

	(void)state;
	peer_with(f->peer, PEER_FILL, 0, MEM, 0x56);
	assert_int_equal(peer_do(f->peer, PEER_MOVE, 0, MEM / 2), 0);
	assert_gone(f);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 0, MEM / 2, 0x56), 1);
	assert_false(foreign_read_in_place(f, 0, MEM / 2));
	assert_int_equal(foreign_take(f, 0, MEM / 2), 0);
	assert_true(foreign_read_in_place(f, 0, MEM / 2));
	foreign_end(f);
}

static void protection_does_not_end_it(void **state)
{
	struct foreign *f = start_taken();

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_PROTECT, 0, MEM / 2), 0);
	assert_int_equal(foreign_flags(f, 0), UAPI_SHMEM_BUF_FOREIGN);
	assert_true(foreign_read_in_place(f, 0, MEM / 2));
	assert_true(foreign_write_in_place(f, 0, MEM / 2));
	foreign_end(f);
}

/* Parent and child both read and write as they like, and neither sees the other's. */
static void a_fork_ends_it_and_is_exact(void **state)
{
	struct foreign *f = start_taken();

	(void)state;
	peer_with(f->peer, PEER_FILL, 0, MEM, 0x57);
	assert_int_equal(peer_do(f->peer, PEER_FORK, 0, 0), 0);
	assert_true(foreign_flags(f, 0) & UAPI_SHMEM_BUF_ENDED);
	assert_false(foreign_read_in_place(f, 0, 4 * PAGE));
	assert_int_equal(peer_with(f->peer, PEER_CHILD_SAME, 0, MEM, 0x57), 1);
	peer_with(f->peer, PEER_CHILD_FILL, 4 * PAGE, 8 * PAGE, 0x58);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 4 * PAGE, 28 * PAGE, 0x57), 1);
	assert_gone(f);
	/* the parent's own again, also while the child lives */
	peer_with(f->peer, PEER_FILL, 0, MEM, 0x59);
	assert_int_equal(foreign_take(f, 0, MEM / 2), 0);
	assert_true(foreign_read_in_place(f, 0, MEM / 2));
	assert_int_equal(peer_with(f->peer, PEER_CHILD_SAME, 4 * PAGE, 8 * PAGE, 0x58), 1);
	assert_int_equal(peer_with(f->peer, PEER_CHILD_SAME, 12 * PAGE, 52 * PAGE, 0x57), 1);
	/* the child's end is nobody else's */
	assert_int_equal(peer_do(f->peer, PEER_END_CHILD, 0, 0), 0);
	assert_int_equal(foreign_flags(f, 0), UAPI_SHMEM_BUF_FOREIGN);
	foreign_end(f);
}

static void exec_ends_it(void **state)
{
	struct foreign *f = start_taken();

	(void)state;
	peer_leave(f->peer, PEER_EXEC);
	assert_gone(f);
	foreign_end(f);
}

/* It has been waited for. */
static void end_without_peer(struct foreign *f)
{
	f->peer->pid = 0;
	foreign_end(f);
}

static void exit_ends_it(void **state)
{
	struct foreign *f = start_taken();
	int status;

	(void)state;
	kill(f->peer->pid, SIGKILL);
	assert_int_equal(waitpid(f->peer->pid, &status, 0), f->peer->pid);
	assert_gone(f);
	end_without_peer(f);
}

/* ---- while a request is in it ---- */

static struct foreign *start_in_flight(void)
{
	struct foreign *f = start_taken();

	assert_int_equal(peer_with(f->peer, PEER_FILL, 0, MEM, 0x44), 0);
	memset(f->stored, 0x66, STORED);
	f->s.hold = true;
	peer_do(f->peer, PEER_BEGIN_READ, PAGE, 2 * PAGE);
	while (!f->s.nr_held)
		usleep(1000);
	return f;
}

/* It has ended, but for the request, which can still be served. */
static void assert_ending(struct foreign *f)
{
	usleep(100000);
	assert_int_equal(foreign_flags(f, 0),
			 UAPI_SHMEM_BUF_FOREIGN | UAPI_SHMEM_BUF_ENDED | UAPI_SHMEM_BUF_DYING);
	for (size_t at = 0; at < MEM / 2; at += PAGE)
		assert_true(foreign_is_mapped(f, 0, at));
}

static void finish(struct foreign *f)
{
	f->s.hold = false;
	assert_int_equal(peer_do(f->peer, PEER_END_READ, 0, 0), 2 * PAGE);
	assert_true(f->s.last_op_flags & UAPI_IO_F_SHMEM_ZC);
	assert_gone(f);
}

static void memory_is_discarded_under_a_request(void **state)
{
	struct foreign *f = start_in_flight();

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_DISCARD, 0, MEM / 4), 0);
	assert_ending(f);
	assert_int_equal(peer_with(f->peer, PEER_TOUCH, 0, MEM / 4, 0), 0);
	finish(f);
	/* the data went where the request began, which is not there any more */
	assert_int_equal(peer_with(f->peer, PEER_SAME, 0, MEM / 4, 0), 1);
	assert_int_equal(peer_with(f->peer, PEER_SAME, MEM / 4, MEM / 4, 0x44), 1);
	foreign_end(f);
}

static void memory_is_unmapped_under_a_request(void **state)
{
	struct foreign *f = start_in_flight();

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_UNMAP, 0, MEM / 2), 0);
	assert_ending(f);
	/* and others have new memory there meanwhile */
	assert_int_equal(peer_do(f->peer, PEER_MAP, 0, 16 * MEM), 0);
	finish(f);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 0, 16 * MEM, 0), 1);
	foreign_end(f);
}

static void memory_is_moved_under_a_request(void **state)
{
	struct foreign *f = start_in_flight();

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_MOVE, 0, MEM / 2), 0);
	assert_ending(f);
	finish(f);
	/* the page has gone along, and the data is in it */
	assert_int_equal(peer_with(f->peer, PEER_SAME, 0, PAGE, 0x44), 1);
	assert_int_equal(peer_with(f->peer, PEER_SAME, PAGE, 2 * PAGE, 0x66), 1);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 3 * PAGE, 29 * PAGE, 0x44), 1);
	foreign_end(f);
}

static void a_fork_under_a_request(void **state)
{
	struct foreign *f = start_in_flight();

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_FORK, 0, 0), 0);
	assert_ending(f);
	assert_int_equal(peer_with(f->peer, PEER_CHILD_SAME, 0, MEM, 0x44), 1);
	/* both write to pages that they share, beside the request's */
	peer_with(f->peer, PEER_FILL, 8 * PAGE, PAGE, 0x45);
	peer_with(f->peer, PEER_CHILD_FILL, 9 * PAGE, PAGE, 0x46);
	finish(f);
	/* the data is the parent's, whose request it was, and not the child's */
	assert_int_equal(peer_with(f->peer, PEER_SAME, PAGE, 2 * PAGE, 0x66), 1);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 8 * PAGE, PAGE, 0x45), 1);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 9 * PAGE, PAGE, 0x44), 1);
	assert_int_equal(peer_with(f->peer, PEER_CHILD_SAME, 0, 9 * PAGE, 0x44), 1);
	assert_int_equal(peer_with(f->peer, PEER_CHILD_SAME, 9 * PAGE, PAGE, 0x46), 1);
	assert_int_equal(peer_with(f->peer, PEER_CHILD_SAME, 10 * PAGE, 54 * PAGE, 0x44), 1);
	foreign_end(f);
}

static void the_process_ends_under_a_request(void **state)
{
	struct foreign *f = start_in_flight();
	int status;

	(void)state;
	kill(f->peer->pid, SIGKILL);
	usleep(200000);
	/* it waits for its request, which is served as if nothing were */
	assert_int_equal(f->s.nr_held, 1);
	f->s.hold = false;
	assert_int_equal(waitpid(f->peer->pid, &status, 0), f->peer->pid);
	assert_gone(f);
	end_without_peer(f);
}

/* UNREG_BUF of what has ended waits for the request as well. */
static void what_has_ended_is_unregistered_under_a_request(void **state)
{
	struct foreign *f = start_in_flight();
	struct unreg_call call = { .s = &f->s, .index = 0, .res = 1 };
	pthread_t thread;

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_DISCARD, 0, MEM), 0);
	pthread_create(&thread, NULL, unreg_thread, &call);
	usleep(100000);
	assert_int_equal(call.res, 1);
	/* what is there now can be taken, by another index */
	peer_with(f->peer, PEER_TOUCH, 0, MEM, 1);
	assert_int_equal(foreign_take(f, 0, MEM / 2), 1);
	f->s.hold = false;
	assert_int_equal(peer_do(f->peer, PEER_END_READ, 0, 0), 2 * PAGE);
	pthread_join(thread, NULL);
	assert_int_equal(call.res, 0);
	assert_false(foreign_is_mapped(f, 0, 0));
	assert_true(foreign_read_in_place(f, 0, MEM / 2));
	assert_last(&f->s, 1, 0);
	foreign_end(f);
}

/* The device goes, with a mapping, ended buffers and live ones. */
static void the_device_may_go_first(void **state)
{
	struct foreign *f = start_taken();

	(void)state;
	assert_int_equal(foreign_take(f, MEM / 2, MEM / 4), 1);
	assert_int_equal(peer_do(f->peer, PEER_DISCARD, 0, PAGE), 0);
	foreign_end(f);
	f = start_taken();
	foreign_end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(discarded_memory_ends_it),
		cmocka_unit_test(what_is_beside_it_does_not_end_it),
		cmocka_unit_test(unmapped_memory_ends_it),
		cmocka_unit_test(moved_memory_ends_it),
		cmocka_unit_test(protection_does_not_end_it),
		cmocka_unit_test(a_fork_ends_it_and_is_exact),
		cmocka_unit_test(exec_ends_it),
		cmocka_unit_test(exit_ends_it),
		cmocka_unit_test(memory_is_discarded_under_a_request),
		cmocka_unit_test(memory_is_unmapped_under_a_request),
		cmocka_unit_test(memory_is_moved_under_a_request),
		cmocka_unit_test(a_fork_under_a_request),
		cmocka_unit_test(the_process_ends_under_a_request),
		cmocka_unit_test(what_has_ended_is_unregistered_under_a_request),
		cmocka_unit_test(the_device_may_go_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
