/* SPDX-License-Identifier: MIT */
/*
 * no_stall.c - who waits for whom when buffers come and go?
 *
 * Requests are kept in flight in buffer A.  Meanwhile other buffers are registered and
 * unregistered, other requests are served, and A itself is unregistered.  What is checked is the
 * order of events: what must not wait has to end while A's requests are still in flight; what
 * must wait has not ended when everything else has.  The stock driver makes all wait: it is told
 * what it does, and that nothing is lost.
 */
#include <errno.h>
#include <liburing.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define NR_SLOW 6U
#define NR_ROUNDS 10U
#define NR_READS 200U
#define A_PAGES 64U
#define B_PAGES 512U

/* A device, a buffer A with NR_SLOW requests in flight in it, and memory for others. */
struct scene {
	struct abi_server s;
	uint8_t *a, *b, *c;
	struct io_uring slow;
};

static void submit_slow(struct scene *sc)
{
	assert_int_equal(io_uring_queue_init(NR_SLOW, &sc->slow, 0), 0);
	sc->s.hold_slow = NR_SLOW;
	memset(sc->a, 0x22, A_PAGES * PAGE);
	for (unsigned int i = 0; i < NR_SLOW; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&sc->slow);

		if (!sqe)
			fail_msg("no ring entry");
		io_uring_prep_read(sqe, sc->s.disk_fd, sc->a + 2 * i * PAGE, 2 * PAGE,
				   ABI_SLOW_OFFSET + 4 * i * PAGE);
	}
	assert_int_equal(io_uring_submit(&sc->slow), NR_SLOW);
	while (sc->s.nr_held != NR_SLOW)
		usleep(1000);
}

static void set_scene(struct scene *sc)
{
	memset(sc, 0, sizeof(*sc));
	sc->a = shared_pages(A_PAGES);
	sc->b = shared_pages(B_PAGES);
	sc->c = shared_pages(4);
	add_zc(&sc->s);
	abi_start(&sc->s);
	assert_int_equal(abi_reg(&sc->s, sc->a, A_PAGES * PAGE, 0), 0);
	assert_int_equal(abi_reg(&sc->s, sc->c, 4 * PAGE, 0), 1);
	submit_slow(sc);
}

/* The slow requests end, one by one; @still is still out as long as there is one. */
static void let_slow_end(struct scene *sc, const struct unreg_call *still)
{
	struct io_uring_cqe *cqe;

	for (unsigned int i = 0; i < NR_SLOW; i++) {
		if (still)
			assert_int_equal(still->res, 1);
		sc->s.hold_slow--;
		assert_int_equal(io_uring_wait_cqe(&sc->slow, &cqe), 0);
		assert_int_equal(cqe->res, 2 * PAGE);
		io_uring_cqe_seen(&sc->slow, cqe);
	}
	io_uring_queue_exit(&sc->slow);
	for (size_t at = 0; at < 2 * NR_SLOW * PAGE; at++)
		assert_int_equal(sc->a[at], 0x22); /* they were matched */
}

static void end_scene(struct scene *sc)
{
	abi_del(&sc->s);
	munmap(sc->a, A_PAGES * PAGE);
	munmap(sc->b, B_PAGES * PAGE);
	munmap(sc->c, 4 * PAGE);
	assert_nothing_pinned();
}

/* ---- what goes on meanwhile ---- */

struct churn {
	struct scene *sc;
	atomic_uint nr_rounds;
	atomic_int error;
};

static void *register_b(void *arg)
{
	struct churn *churn = arg;

	while (churn->nr_rounds < NR_ROUNDS && !churn->error) {
		int index = abi_reg(&churn->sc->s, churn->sc->b, B_PAGES * PAGE, 0);

		churn->error = index < 0 ? index : abi_unreg(&churn->sc->s, (unsigned int)index);
		churn->nr_rounds++;
	}
	return NULL;
}

static atomic_uint nr_reads;

static void *read_elsewhere(void *arg)
{
	struct scene *sc = arg;
	uint8_t *private = shared_pages(4);

	/* by turns in a registered buffer, and in memory that is nobody's */
	for (nr_reads = 0; nr_reads < NR_READS; nr_reads++)
		if (pread(sc->s.disk_fd, nr_reads % 2 ? sc->c : private, 4 * PAGE,
			  ABI_TEST_OFFSET) != 4 * PAGE)
			break;
	munmap(private, 4 * PAGE);
	return NULL;
}

static void other_buffers_and_requests_do_not_wait(void **state)
{
	struct scene sc;
	struct churn churn = { .sc = &sc };
	pthread_t registrar, reader;

	(void)state;
	set_scene(&sc);
	nr_reads = 0;
	pthread_create(&registrar, NULL, register_b, &churn);
	pthread_create(&reader, NULL, read_elsewhere, &sc);
	if (is_ours()) {
		pthread_join(registrar, NULL);
		pthread_join(reader, NULL);
		assert_int_equal(churn.nr_rounds, NR_ROUNDS);
		assert_int_equal(nr_reads, NR_READS);
		assert_int_equal(sc.s.nr_held, NR_SLOW); /* and all that while these waited */
	} else {
		sleep(2);
		print_message("stock: with %u requests kept in flight, %u of %u registrations and "
			      "%u of %u reads ended\n",
			      sc.s.nr_held, churn.nr_rounds, NR_ROUNDS, nr_reads, NR_READS);
	}
	let_slow_end(&sc, NULL);
	if (!is_ours()) {
		pthread_join(registrar, NULL);
		pthread_join(reader, NULL);
	}
	assert_int_equal(churn.error, 0);
	assert_int_equal(nr_reads, NR_READS);
	end_scene(&sc);
}

static void unregistering_waits_for_its_own_requests_only(void **state)
{
	struct scene sc;
	struct unreg_call unreg = { .s = &sc.s, .index = 0, .res = 1 };
	struct churn churn = { .sc = &sc };
	long long held_pins;
	pthread_t thread;

	(void)state;
	set_scene(&sc);
	held_pins = pinned();
	assert_true(held_pins >= A_PAGES + 4);
	pthread_create(&thread, NULL, unreg_thread, &unreg);
	if (is_ours()) {
		while (read_matches(&sc.s, sc.a + 60 * PAGE, PAGE)) /* until it has begun */
			usleep(1000);
		register_b(&churn);
		read_elsewhere(&sc);
		assert_int_equal(churn.nr_rounds, NR_ROUNDS);
		assert_int_equal(churn.error, 0);
		assert_int_equal(nr_reads, NR_READS);
		assert_int_equal(sc.s.nr_held, NR_SLOW);
		/* its index is not given away either */
		assert_int_equal(abi_reg(&sc.s, sc.b, B_PAGES * PAGE, 0), 2);
		assert_int_equal(abi_unreg(&sc.s, 2), 0);
	} else {
		sleep(2);
	}
	/* not one page is let go before the last request has ended */
	assert_int_equal(unreg.res, 1);
	assert_int_equal(pinned(), held_pins);
	let_slow_end(&sc, is_ours() ? &unreg : NULL);
	pthread_join(thread, NULL);
	assert_int_equal(unreg.res, 0);
	assert_int_equal(pinned(), 4); /* C's */
	end_scene(&sc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_buffers_and_requests_do_not_wait),
		cmocka_unit_test(unregistering_waits_for_its_own_requests_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
