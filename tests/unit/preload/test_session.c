/* SPDX-License-Identifier: MIT */
/* Sessions against servers that behave, misbehave, or say nothing. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "preload/blocks.h"
#include "preload/config.h"
#include "preload/fork.h"
#include "preload/session.h"
#include "preload/shared.h"
#include "preload/shim.h"
#include "preload/stats.h"
#include "preload/sys.h"
#include "preload/talk.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/common/old_peer.h"
#include "tests/unit/common/vectors.h"

enum manner { POLITE, SILENT, REFUSING, GARBLED, HANGS_UP, SLOW };

/* One fake server: a thread on a listening socket. */
struct fake {
	_Atomic enum manner manner;
	bool legacy;
	int listener;
	pthread_t thread;
	atomic_bool stop;
	uint32_t features;	    /* in the answer to HELLO */
	bool declines_scans;	    /* as who has no eyes for it */
	const struct vector *hello; /* NULL, or the answer to HELLO, byte by byte */
	atomic_uint hellos, adds, removes, memfds, scans, residents;
	atomic_uint offended; /* by what an older server would have hung up for */
	atomic_uint open_connections;
};

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static char dir[32], legacy_dir[32];

static void count_memfd(struct fake *f, int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	/* newer kernels add F_SEAL_EXEC */
	if ((seals & SEALS) == SEALS)
		f->memfds++;
	close(fd);
}

static bool serve_legacy(struct fake *f, int conn)
{
	int32_t index = (int32_t)f->adds++;
	int fds[WIRE_FDS_MAX];
	unsigned int nr;
	char byte;

	if (wire_recv(conn, &byte, 1, fds, &nr) <= 0)
		return false;
	if (nr == 1)
		count_memfd(f, fds[0]);
	if (f->manner == SILENT)
		return true;
	if (f->manner == HANGS_UP)
		return false;
	if (f->manner == REFUSING)
		index = -EDQUOT;
	return send(conn, &index, sizeof(index), MSG_NOSIGNAL) == sizeof(index);
}

/* False: the connection is over. */
static bool serve_one(struct fake *f, int conn)
{
	struct wire_request req;
	struct wire_reply reply;
	int fds[WIRE_FDS_MAX];
	unsigned int nr;

	if (wire_recv(conn, &req, sizeof(req), fds, &nr) != (long)sizeof(req))
		return false;
	f->offended += old_server_refuses((uint8_t *)&req, sizeof(req), nr) != 0;
	wire_reply_init(&reply, req.type, req.seq);
	if (req.type == WIRE_HELLO) {
		f->hellos++;
		close(fds[0]);
		reply.features = f->features;
		if (f->hello)
			return wire_send(conn, f->hello->bytes, f->hello->len, -1) == 0;
	} else if (req.type == WIRE_SCAN) {
		f->scans++;
		reply.status = f->declines_scans ? -EOPNOTSUPP : 0;
		reply.reason = f->declines_scans ? WIRE_NO_FEATURE : WIRE_OK;
	} else if (req.type == WIRE_RESIDENT) {
		f->residents++;
		return true;
	} else if (req.type == WIRE_ADD) {
		reply.index = f->adds++;
		count_memfd(f, fds[0]);
	} else if (req.type == WIRE_REMOVE) {
		f->removes++;
	}
	switch (f->manner) {
	case SILENT:
		return true;
	case HANGS_UP:
		return false;
	case SLOW:
		usleep(1000 * 1000);
		break;
	case REFUSING:
		reply.status = -EACCES;
		reply.reason = WIRE_NO_ACCESS;
		break;
	case GARBLED:
		reply.magic = 0;
		break;
	default:
		break;
	}
	return wire_send(conn, &reply, sizeof(reply), -1) == 0;
}

static void *fake_main(void *arg)
{
	struct fake *f = arg;
	struct pollfd fds[8] = { { .fd = f->listener, .events = POLLIN } };
	nfds_t nr = 1;

	while (!f->stop) {
		if (poll(fds, nr, 5) <= 0)
			continue;
		if (fds[0].revents && nr < 8) {
			fds[nr++] = (struct pollfd){ .fd = accept(f->listener, NULL, NULL),
						     .events = POLLIN };
			f->open_connections++;
		}
		for (nfds_t i = 1; i < nr; i++) {
			if (!fds[i].revents ||
			    (f->legacy ? serve_legacy(f, fds[i].fd) : serve_one(f, fds[i].fd)))
				continue;
			close(fds[i].fd);
			f->open_connections--;
			fds[i--] = fds[--nr];
		}
	}
	for (nfds_t i = 1; i < nr; i++)
		close(fds[i].fd);
	return NULL;
}

/* Listens, but nobody accepts yet. */
static void fake_listen(struct fake *f, unsigned int device, enum manner manner, bool legacy)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	memset(f, 0, sizeof(*f));
	f->manner = manner;
	f->legacy = legacy;
	snprintf(addr.sun_path, sizeof(addr.sun_path), WIRE_SOCKET_FORMAT,
		 legacy ? legacy_dir : dir, device);
	f->listener = socket(AF_UNIX, (legacy ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(f->listener, legacy ? 8 : 1), 0);
}

static void fake_start(struct fake *f, unsigned int device, enum manner manner, bool legacy)
{
	fake_listen(f, device, manner, legacy);
	assert_int_equal(pthread_create(&f->thread, NULL, fake_main, f), 0);
}

static void fake_stop(struct fake *f)
{
	f->stop = true;
	pthread_join(f->thread, NULL);
	close(f->listener);
	assert_int_equal(f->offended, 0);
}

static int setup(void **state)
{
	char *none = NULL;

	(void)state;
	strcpy(dir, "/tmp/test-session-XXXXXX");
	strcpy(legacy_dir, "/tmp/test-legacy-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_non_null(mkdtemp(legacy_dir));
	config_read(&none, &config);
	strcpy(config.socket_dir, dir);
	strcpy(config.legacy_dir, legacy_dir);
	config.connect_ms = 60000; /* who answers may be slow, on a busy machine */
	shim.on = true;
	session_forget();
	stats_reset();
	return 0;
}

static int teardown(void **state)
{
	char command[80];

	(void)state;
	session_forget();
	snprintf(command, sizeof(command), "rm -rf %s %s", dir, legacy_dir);
	return system(command);
}

static void arms_and_hands_over_what_is_there_and_what_comes(void **state)
{
	struct fake f;
	void *p = block_alloc(4096, 4096, false);
	void *big;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	errno = 4711;
	session_arm(5, 0);
	assert_int_equal(errno, 4711);
	assert_true(session_armed());
	assert_int_equal(f.hellos, 1);
	assert_true(f.memfds >= 1);
	assert_int_equal(stat_get(STAT_ARENAS_SENT), f.memfds);
	/* a second time changes nothing */
	session_arm(5, 0);
	assert_int_equal(f.hellos, 1);
	assert_int_equal(stat_get(STAT_ARENAS_SENT), f.memfds);
	/* one too big for any arena there is */
	big = block_alloc(300UL << 20, 4096, false);
	assert_non_null(big);
	for (int i = 0; i < 10000 && f.adds < 2; i++)
		usleep(1000);
	assert_true(f.adds >= 2);
	block_free(big);
	block_free(p);
	fake_stop(&f);
}

static void an_arena_is_there_before_the_first_allocation(void **state)
{
	struct fake f;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	session_arm(5, 0);
	assert_true(f.memfds >= 1);
	fake_stop(&f);
}

static void new_small_arena(void)
{
	config.arena_first = ARENA_ALIGN;
	assert_true(blocks_lock_within(1000));
	assert_non_null(arena_new(ARENA_GRANULE));
	blocks_news();
	blocks_unlock();
}

/* Allocate, then open: the first read is to find the buffer registered. */
static void an_open_waits_for_what_was_sent_before_it(void **state)
{
	unsigned long answered;
	struct fake f;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	session_arm(5, 0);
	answered = stat_get(STAT_ARENAS_SENT);
	f.manner = SLOW;
	new_small_arena();
	session_arm(5, 0);
	assert_int_equal(stat_get(STAT_ARENAS_SENT), answered + 1);
	fake_stop(&f);
}

/* Touch what was allocated before another thread's open, then open. */
static void an_open_tells_of_what_was_touched_since(void **state)
{
	char *p = block_alloc(4UL << 20, 4096, false);
	unsigned int adds;
	struct fake f;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	session_arm(5, 0);
	session_arm(5, 0); /* by now all that is populated ahead has been told of */
	adds = f.adds;
	session_arm(5, 0);
	assert_int_equal(f.adds, adds);
	block_free(p);
	p = block_alloc(48UL << 20, 4096, false); /* more than is ever populated ahead */
	session_arm(5, 0);
	adds = f.adds;
	memset(p, 1, 48UL << 20);
	session_arm(5, 0);
	assert_true(f.adds > adds);
	adds = f.adds;
	session_arm(5, 0);
	assert_int_equal(f.adds, adds);
	/* Who opens all the time is not made to tell each time. */
	config.connect_ms = 3; /* and no huge page is made of it each time */
	for (int i = 0; i < 200; i++) {
		assert_int_equal(madvise(p, 4096, MADV_REMOVE), 0);
		session_arm(5, 0);
		p[0] = 1;
		session_arm(5, 0);
	}
	assert_true(f.adds < adds + 100);
	block_free(p);
	fake_stop(&f);
}

/*
 * A program that never fills its blocks: more of them is not made to exist, but what was handed
 * out before may exist by now.
 */
static void a_server_is_told_of_blocks_that_are_not_populated(void **state)
{
	void *blocks[64];
	unsigned int told;
	struct fake f;

	(void)state;
	fake_listen(&f, 5, POLITE, false);
	f.features = WIRE_FEATURE_RESIDENT;
	assert_int_equal(pthread_create(&f.thread, NULL, fake_main, &f), 0);
	session_arm(5, 0);
	for (int i = 0; i < 32; i++)
		assert_non_null(blocks[i] = block_alloc(2UL << 20, 4096, false));
	session_arm(5, 0); /* what they made arenas for was answered */
	told = f.residents;
	for (int i = 32; i < 64; i++)
		assert_non_null(blocks[i] = block_alloc(4UL << 20, 4096, false));
	assert_true(arena_resident() < 64UL << 20);
	for (int i = 0; i < 10000 && f.residents == told; i++)
		usleep(1000);
	assert_true(f.residents > told);
	for (int i = 0; i < 64; i++)
		block_free(blocks[i]);
	fake_stop(&f);
}

/* To a server an arena whose memory went back is another one. */
static uint64_t arenas_so_far(void)
{
	uint64_t last = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		last = arenas[i].id > last ? arenas[i].id : last;
	return last;
}

/* What a program frees and takes again stays where it is, and with the server. */
static void what_is_used_in_turns_stays_with_the_server(void **state)
{
	uint64_t first = 0;
	void *blocks[24];
	struct fake f;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	session_arm(5, 0);
	for (int round = 0; round < 8; round++) {
		for (int i = 0; i < 24; i++) {
			blocks[i] = block_alloc(1UL << 20, 4096, false);
			assert_non_null(blocks[i]);
			memset(blocks[i], 1, 1UL << 20);
		}
		if (!round)
			first = arenas_so_far();
		for (int i = 0; i < 24; i++)
			block_free(blocks[i]);
	}
	assert_int_equal(arenas_so_far(), first);
	fake_stop(&f);
}

static void an_answer_that_never_comes_is_waited_for_once(void **state)
{
	struct fake f;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	session_arm(5, 0);
	config.connect_ms = 100; /* only now: a polite server may be on a busy machine */
	f.manner = SILENT;
	new_small_arena();
	session_arm(5, 0);
	session_arm(5, 0);
	assert_true(session_armed());
	assert_int_equal(stat_get(STAT_DEADLINE), 1);
	fake_stop(&f);
}

static void no_server_is_counted_and_not_asked_again_at_once(void **state)
{
	(void)state;
	session_arm(9, 0);
	session_arm(9, 0);
	assert_false(session_armed());
	assert_int_equal(stat_get(STAT_NO_SERVER), 1);
}

static void a_silent_server_costs_no_more_than_the_deadline(void **state)
{
	struct fake f;
	long long before = sys_now_ms();

	(void)state;
	config.connect_ms = 100;
	fake_start(&f, 5, SILENT, false);
	session_arm(5, 0);
	assert_int_equal(stat_get(STAT_DEADLINE), 1);
	assert_true(sys_now_ms() - before >= 100);
	assert_true(sys_now_ms() - before < 60000); /* it ends at all */
	/* and is not waited for again */
	config.connect_ms = 60000;
	before = sys_now_ms();
	session_arm(5, 0);
	assert_true(sys_now_ms() - before < 30000);
	assert_int_equal(stat_get(STAT_DEADLINE), 1);
	fake_stop(&f);
}

static void await_count(atomic_uint *count, unsigned int at_least)
{
	for (int i = 0; i < 10000 && *count < at_least; i++)
		usleep(1000);
	assert_true(*count >= at_least);
}

/* The program opens once, and then only reads and writes: nothing calls us again. */
static void a_late_server_has_everything_when_it_looks(void **state)
{
	struct fake f;
	void *p = block_alloc(4096, 4096, false);

	(void)state;
	config.connect_ms = 20;
	fake_start(&f, 5, SLOW, false);
	session_arm(5, 0);
	assert_int_equal(f.memfds, 0);
	assert_int_equal(stat_get(STAT_DEADLINE), 1);
	await_count(&f.memfds, 1);
	for (int i = 0; i < 10000 && !stat_get(STAT_ARENAS_SENT); i++) {
		usleep(1000);
		session_arm(5, 0);
	}
	assert_int_equal(stat_get(STAT_LATE), 1);
	assert_int_equal(f.hellos, 1);
	block_free(p);
	fake_stop(&f);
}

/* One that refuses us, late, ends the session. */
static void a_late_refusal_is_one(void **state)
{
	struct fake f;

	(void)state;
	config.connect_ms = 20;
	fake_listen(&f, 5, REFUSING, false);
	session_arm(5, 0);
	assert_true(session_armed());
	assert_int_equal(pthread_create(&f.thread, NULL, fake_main, &f), 0);
	await_count(&f.hellos, 1);
	for (int i = 0; i < 10000 && session_armed(); i++) {
		usleep(1000);
		session_arm(5, 0);
	}
	assert_false(session_armed());
	assert_int_equal(stat_get(STAT_REFUSED), 1);
	fake_stop(&f);
}

/* As many connections as nobody accepts; returns how many. */
static unsigned int fill_queue(unsigned int device, int *fds, unsigned int max)
{
	for (unsigned int i = 0; i < max; i++) {
		fds[i] = talk_connect(dir, device, SOCK_SEQPACKET, 0);
		if (fds[i] == -EAGAIN)
			return i;
		assert_true(fds[i] >= 0);
	}
	fail_msg("%u connections, and the queue is not full", max);
	return 0;
}

static void *accept_later(void *arg)
{
	struct fake *f = arg;

	usleep(100 * 1000);
	return fake_main(f);
}

static void a_full_queue_is_waited_for(void **state)
{
	struct fake f;
	int others[8];
	unsigned int nr;

	(void)state;
	fake_listen(&f, 5, POLITE, false);
	nr = fill_queue(5, others, 8);
	config.connect_ms = 50;
	session_arm(5, 0);
	assert_false(session_armed());
	assert_int_equal(stat_get(STAT_DEADLINE), 1);
	assert_int_equal(stat_get(STAT_NO_SERVER), 0);
	session_forget();
	config.connect_ms = 60000;
	assert_int_equal(pthread_create(&f.thread, NULL, accept_later, &f), 0);
	session_arm(5, 0);
	assert_true(session_armed());
	while (nr--)
		close(others[nr]);
	fake_stop(&f);
}

static void misbehaving_servers_are_left_alone(void **state)
{
	(void)state;
	for (enum manner manner = REFUSING; manner <= HANGS_UP; manner++) {
		struct fake f;
		unsigned int device = 20 + manner;

		stats_reset();
		fake_start(&f, device, manner, false);
		session_arm(device, 0);
		assert_false(session_armed());
		assert_int_equal(stat_get(STAT_REFUSED), 1);
		assert_int_equal(f.memfds, 0);
		for (int i = 0; i < 10000 && f.open_connections; i++)
			usleep(1000);
		assert_int_equal(f.open_connections, 0); /* we hung up */
		fake_stop(&f);
	}
}

/* Each answer to HELLO that the specification has an example of. */
static void check_vector(const struct vector *v)
{
	static unsigned int device = 100;
	bool good = v->verdict == VECTOR_ACCEPTED && !vector_field(v, "status");
	struct fake f;

	if (!v->reply || (v->verdict == VECTOR_ACCEPTED && vector_field(v, "type") != WIRE_HELLO))
		return;
	print_message("%s\n", v->name);
	session_forget();
	fake_listen(&f, ++device, POLITE, false);
	f.hello = v;
	assert_int_equal(pthread_create(&f.thread, NULL, fake_main, &f), 0);
	session_arm(device, 0);
	assert_int_equal(session_armed(), good);
	assert_int_equal(f.memfds >= 1, good);
	fake_stop(&f);
}

static void answers_are_understood_as_specified(void **state)
{
	(void)state;
	vectors_each(check_vector);
}

/*
 * Servers of any age: whatever the shim does, fake_stop() looks whether it said something that
 * the older ones would have ended the session for.  Only who takes hints gets them.
 */
static void an_older_server_is_asked_for_what_it_can(void **state)
{
	static const uint32_t features[] = { 0, WIRE_FEATURE_RESIDENT,
					     WIRE_FEATURE_RESIDENT | WIRE_FEATURE_DECLINES };
	static char ours[SHARED_MIN];

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct fake f;

		session_forget();
		fake_listen(&f, 60 + i, POLITE, false);
		f.features = features[i];
		assert_int_equal(pthread_create(&f.thread, NULL, fake_main, &f), 0);
		session_arm(60 + i, 0);
		/* More than was populated before it was asked for. */
		for (unsigned int k = 0; k < 24 && !f.residents; k++) {
			assert_non_null(block_alloc(1UL << 20, 4096, false));
			usleep(10000);
		}
		await_count(&f.residents, (features[i] & WIRE_FEATURE_RESIDENT) != 0);
		shared_note(ours, sizeof(ours));
		session_arm(60 + i,
			    0); /* offers again what has come into being, and asks to look */
		assert_true(session_armed());
		assert_int_equal(f.hellos, 1);
		assert_true(f.scans >= 1);
		assert_int_equal(f.residents >= 1, (features[i] & WIRE_FEATURE_RESIDENT) != 0);
		fake_stop(&f);
	}
}

/* Nor is it asked for what it declines, again and again. */
static void who_declines_to_look_is_not_asked_again(void **state)
{
	static char ours[2][SHARED_MIN];
	struct fake f;

	(void)state;
	fake_listen(&f, 5, POLITE, false);
	f.declines_scans = true;
	assert_int_equal(pthread_create(&f.thread, NULL, fake_main, &f), 0);
	shared_note(ours[0], SHARED_MIN);
	session_arm(5, 0);
	shared_note(ours[1], SHARED_MIN);
	session_arm(5, 0);
	assert_true(session_armed());
	assert_true(f.memfds >= 1);
	assert_int_equal(f.scans, 1);
	fake_stop(&f);
}

/* Programs close descriptors that they do not know. */
static void a_socket_closed_under_us_is_noticed(void **state)
{
	struct fake f;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	session_arm(5, 0);
	assert_true(session_armed());
	for (int fd = 44; fd < 1024; fd++) { /* where the shim moves its own */
		struct stat st;

		if (sys_fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) {
			close(fd);
			/* and something of the program's own is opened there */
			assert_int_equal(dup2(0, fd), fd);
			session_arm(5, 0);
			assert_true(fcntl(fd, F_GETFD) >= 0); /* which we left alone */
			close(fd);
			break;
		}
	}
	assert_int_equal(stat_get(STAT_SESSION_LOST), 1);
	assert_int_equal(f.hellos, 2);
	fake_stop(&f);
}

static unsigned int nr_arenas(void)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < ARENAS_MAX; i++) {
		struct arena_view view;

		arena_view(i, &view);
		nr += view.id && !view.part;
	}
	return nr;
}

static void the_older_protocol_is_spoken_where_there_is_no_other(void **state)
{
	struct fake f;
	void *grown = block_alloc_growing(1UL << 20);

	(void)state;
	assert_true(arena_of(grown)->growing);
	fake_start(&f, 6, POLITE, true);
	session_arm(6, 0);
	assert_true(session_armed());
	assert_int_equal(stat_get(STAT_LEGACY), 1);
	assert_true(f.memfds >= 1);
	/* It may have all of a file exist, so it gets none that is longer than an arena. */
	assert_int_equal(f.memfds, nr_arenas());
	block_free(grown);
	fake_stop(&f);
}

/* Each open would pay for it again. */
static void an_older_server_that_fails_us_is_not_asked_at_every_open(void **state)
{
	static const enum manner manners[] = { SILENT, HANGS_UP, REFUSING };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct fake f;
		unsigned int offered = manners[i] == HANGS_UP ? 1 : nr_arenas();

		stats_reset();
		config.connect_ms = manners[i] == SILENT ? 200 : 60000;
		fake_start(&f, 30 + i, manners[i], true);
		session_arm(30 + i, 0);
		/* What waits in vain is parked: its connection's own end is sent after it. */
		if (manners[i] == SILENT)
			offered *= 2;
		await_count(&f.memfds, offered);
		session_arm(30 + i, 0);
		assert_int_equal(f.memfds, offered);
		assert_int_equal(session_armed(), manners[i] != HANGS_UP);
		assert_int_equal(stat_get(STAT_DEADLINE), manners[i] == SILENT);
		assert_int_equal(stat_get(STAT_ARENAS_REFUSED), manners[i] == SILENT ? 0 : offered);
		assert_int_equal(stat_get(STAT_ARENAS_SENT), 0);
		session_forget();
		fake_stop(&f);
	}
}

/* open() may be called by a signal handler, wherever its thread is. */
static void arming_inside_the_allocator_gives_up(void **state)
{
	struct fake f;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	blocks_lock();
	session_arm(5, 0);
	assert_false(session_armed());
	blocks_unlock();
	session_arm(5, 0);
	assert_true(session_armed());
	fake_stop(&f);
}

static atomic_bool stopped;
static int go_on[2];

static void stop_until_told(int sig)
{
	char c;

	(void)sig;
	stopped = true;
	assert_int_equal(read(go_on[0], &c, 1), 1);
}

static void *arm_slowly(void *arg)
{
	session_arm(5, 0);
	return arg;
}

/* Collectors stop threads wherever they are: who opens a file meanwhile waits, and not for ever. */
static void a_thread_that_is_stopped_while_it_arms_stops_nobody(void **state)
{
	struct fake f;
	pthread_t thread;
	long long before;

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* it keeps signals back until the thread calls the C library */
#endif
	assert_int_equal(pipe(go_on), 0);
	signal(SIGUSR1, stop_until_told);
	fake_start(&f, 5, SILENT, false);
	assert_int_equal(pthread_create(&thread, NULL, arm_slowly, NULL), 0);
	await_count(&f.hellos, 1); /* it waits for the answer */
	pthread_kill(thread, SIGUSR1);
	for (int i = 0; i < 10000 && !stopped; i++)
		usleep(1000);
	assert_true(stopped);
	config.connect_ms = 50;
	before = sys_now_ms();
	session_arm(6, 0);
	assert_true(sys_now_ms() - before >= 50);
	assert_int_equal(stat_get(STAT_DEADLINE), 1);
	assert_int_equal(write(go_on[1], "", 1), 1);
	fake_stop(&f); /* that ends its waiting */
	pthread_join(thread, NULL);
	signal(SIGUSR1, SIG_DFL);
	close(go_on[0]);
	close(go_on[1]);
}

static void two_disks_have_two_sessions(void **state)
{
	struct fake a, b;

	(void)state;
	fake_start(&a, 7, POLITE, false);
	fake_start(&b, 8, POLITE, false);
	session_arm(7, 0);
	session_arm(8, 0);
	assert_int_equal(a.memfds, b.memfds);
	assert_true(a.memfds >= 1);
	fake_stop(&a);
	fake_stop(&b);
}

/* The parent looked for a server in vain, and has no arena. */
static void a_child_of_a_parent_without_arenas_is_armed(void **state)
{
	struct fake f;
	int status;
	pid_t pid = fork(); /* from here on: a process that has no arena yet */

	(void)state;
	if (pid == 0) {
		shim.on = false;
		session_arm(9, 0);
		if (session_armed() || arena_reserved)
			_exit(1);
		fake_start(&f, 5, POLITE, false);
		pid = fork();
		if (pid == 0) {
			shim.on = true;
			session_arm(5, 0);
			_exit(session_armed() && stat_get(STAT_ARENAS_SENT) ? 0 : 2);
		}
		if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
			_exit(3);
		_exit(WEXITSTATUS(status));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_forked_child_has_a_session_of_its_own(void **state)
{
	struct fake f;
	int status;
	pid_t pid;

	(void)state;
	fake_start(&f, 5, POLITE, false);
	session_arm(5, 0);
	pid = fork();
	if (pid == 0) {
		if (session_armed())
			_exit(1);
		session_arm(5, 0);
		_exit(session_armed() && stat_get(STAT_ARENAS_SENT) ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(session_armed());
	assert_int_equal(f.hellos, 2);
	fake_stop(&f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* first: no arena was ever made in this process */
		T(a_child_of_a_parent_without_arenas_is_armed),
		/* before anything has gone back: that is not done again soon */
		T(what_is_used_in_turns_stays_with_the_server),
		T(arms_and_hands_over_what_is_there_and_what_comes),
		T(an_arena_is_there_before_the_first_allocation),
		T(an_open_waits_for_what_was_sent_before_it),
		T(an_answer_that_never_comes_is_waited_for_once),
		T(no_server_is_counted_and_not_asked_again_at_once),
		T(a_silent_server_costs_no_more_than_the_deadline),
		T(a_late_server_has_everything_when_it_looks), T(a_late_refusal_is_one),
		T(a_full_queue_is_waited_for), T(misbehaving_servers_are_left_alone),
		T(answers_are_understood_as_specified), T(an_older_server_is_asked_for_what_it_can),
		T(who_declines_to_look_is_not_asked_again), T(a_socket_closed_under_us_is_noticed),
		T(the_older_protocol_is_spoken_where_there_is_no_other),
		T(an_older_server_that_fails_us_is_not_asked_at_every_open),
		T(arming_inside_the_allocator_gives_up),
		T(a_thread_that_is_stopped_while_it_arms_stops_nobody),
		T(two_disks_have_two_sessions), T(a_forked_child_has_a_session_of_its_own),
		T(a_server_is_told_of_blocks_that_are_not_populated),
		T(an_open_tells_of_what_was_touched_since), /* last: it spends what is populated
							       ahead */
	};

	pthread_atfork(fork_prepare, fork_parent, fork_child);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
