/* SPDX-License-Identifier: MIT */
/*
 * A server hands over: when it does and when it does not, and what its listener leaves to the
 * successor.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "server/device/device_internal.h"
#include "server/session/listener_internal.h"
#include "tests/unit/cmocka_all.h"

static struct registry registry;
static struct state shown;
static struct vault vault;
static int keeper;
static char dir[32];
static struct device d; /* what hands over */
static struct listener after;
#define before (d.listener)
static int stops;
static int upgrade_says;

static int judge(void *host, unsigned int device, int fd, enum wire_reason *reason)
{
	(void)host, (void)device, (void)fd, (void)reason;
	return 0;
}

static void note_stop(void *host)
{
	(void)host;
	stops++;
}

static int begin_upgrade(void *host, enum wire_reason *reason)
{
	(void)host;
	*reason = WIRE_NO_KEEPER;
	return upgrade_says;
}

static struct listener a_listener(void)
{
	return (struct listener){
		.device = 3,
		.socket = -1,
		.legacy = -1,
		.limits = { .max_clients = 9, .max_user_clients = 9, .hello_timeout = 5 },
		.buffers = &d.buffers,
		.vault = &vault,
		.judge_proof = judge,
		.stop = note_stop,
		.upgrade = begin_upgrade,
	};
}

static int setup(void **state)
{
	int socks[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks), 0);
	vault = (struct vault){ .fd = socks[0] };
	keeper = socks[1];
	stops = upgrade_says = 0;
	d = (struct device){ .vault = &vault, .state = &shown };
	d.ctrl = CTRL_CLOSED;
	d.buffers.registry = &registry;
	shown.keeper = 1;
	strcpy(dir, "/tmp/test-handover-XXXXXX");
	assert_non_null(mkdtemp(dir));
	before = a_listener();
	return listener_open(&before, dir, NULL);
}

static int teardown(void **state)
{
	char path[64];

	(void)state;
	listener_close(&before);
	vault_close(&vault);
	close(keeper);
	snprintf(path, sizeof(path), "%s/ublkb3.sock", dir);
	unlink(path);
	return rmdir(dir);
}

static int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/ublkb3.sock", dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	listener_run(&before);
	return fd;
}

static void say(struct listener *l, int fd, enum wire_type type, uint32_t seq)
{
	struct wire_request req;

	wire_request_init(&req, type, seq);
	assert_int_equal(wire_send(fd, &req, sizeof(req), type == WIRE_HELLO ? 0 : -1), 0);
	listener_run(l);
}

static struct wire_reply hear(int fd)
{
	struct wire_reply reply = { 0 };

	assert_int_equal(recv(fd, &reply, sizeof(reply), 0), sizeof(reply));
	return reply;
}

static void hears_nothing(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

static unsigned int successors_limit = 9; /* --max-clients */

/* What the keeper was told so far becomes a successor's, as the keeper would send it. */
static void succeed(void)
{
	struct vault_record records[16];
	struct vault_message m;
	int fds[16];
	unsigned int nr = 0;
	int fd;

	listener_leave(&before);
	assert_int_equal(fcntl(keeper, F_SETFL, O_NONBLOCK), 0);
	while (vault_receive(keeper, &m, &fd) == 1) {
		unsigned int i = 0;

		while (i < nr && records[i].id != m.record.id)
			i++;
		if (i == nr)
			fds[nr++] = -1;
		records[i] = m.record;
		if (fd >= 0)
			fds[i] = fd;
	}
	after = a_listener();
	after.limits.max_clients = successors_limit;
	assert_int_equal(listener_open(&after, dir, NULL), 0);
	for (unsigned int i = 0; i < nr; i++) {
		if (records[i].kind == VAULT_CLIENT)
			listener_restore(&after, &records[i], fds[i]);
		else
			close(fds[i]);
	}
	/* The predecessor ends without a word to anybody. */
	before.vault = NULL;
}

static void a_client_before_hello_is_the_successors(void **state)
{
	int fd = dial();
	struct wire_reply reply;

	(void)state;
	succeed();
	assert_int_equal(after.nr_clients, 1);
	say(&after, fd, WIRE_HELLO, 4);
	reply = hear(fd);
	assert_int_equal(reply.type, WIRE_HELLO);
	assert_int_equal(reply.status, 0);
	say(&after, fd, WIRE_PING, 5);
	assert_int_equal(hear(fd).status, 0);
	listener_close(&after);
	close(fd);
}

static void one_that_never_said_it_must_say_it_still(void **state)
{
	int fd = dial();

	(void)state;
	succeed();
	say(&after, fd, WIRE_PING, 5);
	assert_int_equal(hear(fd).reason, WIRE_HELLO_FIRST);
	listener_close(&after);
	close(fd);
}

static void a_client_after_hello_need_not_say_it_again(void **state)
{
	int fd = dial();

	(void)state;
	say(&before, fd, WIRE_HELLO, 1);
	assert_int_equal(hear(fd).status, 0);
	succeed();
	say(&after, fd, WIRE_PING, 5);
	assert_int_equal(hear(fd).status, 0);
	listener_close(&after);
	close(fd);
}

/* One that cannot be taken over costs nobody else the device. */
static void who_cannot_be_taken_over_is_hung_up_on(void **state)
{
	int one = dial();
	int two = dial();
	struct vault_message m;
	char byte;
	int fd;

	(void)state;
	say(&before, one, WIRE_HELLO, 1);
	say(&before, two, WIRE_HELLO, 1);
	assert_int_equal(hear(one).status, 0);
	assert_int_equal(hear(two).status, 0);
	successors_limit = 1;
	succeed();
	successors_limit = 9;
	assert_int_equal(after.nr_clients, 1);
	say(&after, one, WIRE_PING, 2);
	assert_int_equal(hear(one).status, 0);
	assert_int_equal(recv(two, &byte, 1, 0), 0);
	/* Nor does it cost the next successor anything: the keeper forgets it. */
	assert_int_equal(vault_receive(keeper, &m, &fd), 1);
	while (m.op != VAULT_DROP)
		assert_int_equal(vault_receive(keeper, &m, &fd), 1);
	listener_close(&after);
	close(one);
	close(two);
}

static void who_asked_for_an_upgrade_is_answered_by_the_successor(void **state)
{
	int fd = dial();
	struct wire_reply reply;

	(void)state;
	say(&before, fd, WIRE_UPGRADE, 77);
	hears_nothing(fd);
	succeed();
	listener_run(&after);
	hears_nothing(fd);
	listener_upgraded(&after, 0, WIRE_OK);
	reply = hear(fd);
	assert_int_equal(reply.type, WIRE_UPGRADE);
	assert_int_equal(reply.seq, 77);
	assert_int_equal(reply.status, 0);
	listener_upgraded(&after, 0, WIRE_OK); /* once */
	hears_nothing(fd);
	listener_close(&after);
	close(fd);
}

static void an_upgrade_that_cannot_be_is_refused_at_once(void **state)
{
	int fd = dial();
	struct wire_reply reply;

	(void)state;
	upgrade_says = -ESRCH;
	say(&before, fd, WIRE_UPGRADE, 7);
	reply = hear(fd);
	assert_int_equal(reply.status, -ESRCH);
	assert_int_equal(reply.reason, WIRE_NO_KEEPER);
	listener_upgraded(&before, 0, WIRE_OK);
	hears_nothing(fd);
	close(fd);
}

static void root_alone_stops_and_upgrades(void **state)
{
	int fd = dial();

	(void)state;
	say(&before, fd, WIRE_STOP, 1);
	assert_int_equal(hear(fd).status, 0);
	assert_int_equal(stops, 1);
	before.first->uid = 65534; /* as SO_PEERCRED would have said */
	say(&before, fd, WIRE_STOP, 2);
	assert_int_equal(hear(fd).reason, WIRE_NOT_ALLOWED);
	assert_int_equal(stops, 1);
	close(fd);
	fd = dial();
	before.first->uid = 65534;
	say(&before, fd, WIRE_UPGRADE, 3);
	assert_int_equal(hear(fd).reason, WIRE_NOT_ALLOWED);
	listener_upgraded(&before, 0, WIRE_OK);
	close(fd);
}

/* ---- the server ---- */

static void keeper_says(enum vault_op op, int status, enum wire_reason reason)
{
	struct vault_record r = { .outcome = { .status = status, .reason = reason } };

	assert_int_equal(vault_send(keeper, op, &r, -1), 0);
	handover_hear(&d);
}

static enum vault_op keeper_hears_last(void)
{
	struct vault_message m = { 0 };
	int fd;

	assert_int_equal(fcntl(keeper, F_SETFL, O_NONBLOCK), 0);
	while (vault_receive(keeper, &m, &fd) == 1)
		if (fd >= 0)
			close(fd);
	return m.op;
}

static int ask_for_upgrade(void)
{
	int fd = dial();

	d.listener.host = &d;
	d.listener.upgrade = handover_asked;
	say(&d.listener, fd, WIRE_UPGRADE, 7);
	return fd;
}

static void what_does_not_work_is_not_handed_over_to(void **state)
{
	int fd = ask_for_upgrade();

	(void)state;
	hears_nothing(fd);
	assert_int_equal(keeper_hears_last(), VAULT_TRY);
	keeper_says(VAULT_TRIED, -EBADMSG, WIRE_OTHER_STATE);
	assert_int_equal(hear(fd).reason, WIRE_OTHER_STATE);
	handover_go_on(&d); /* and does not end */
	assert_false(d.buffers.paused);
	close(fd);
	fd = ask_for_upgrade(); /* again */
	hears_nothing(fd);
	close(fd);
}

static void one_upgrade_at_a_time(void **state)
{
	int first = ask_for_upgrade();
	int second = ask_for_upgrade();

	(void)state;
	hears_nothing(first);
	assert_int_equal(hear(second).reason, WIRE_UPGRADING);
	close(first);
	close(second);
}

/* A successor on probation: who asked its predecessor, and who asks now. */
static void a_second_upgrade_does_not_answer_the_first(void **state)
{
	int first = ask_for_upgrade();
	int second;

	(void)state;
	d.handover.state = HANDOVER_NONE; /* as in the successor */
	second = ask_for_upgrade();
	assert_int_equal(hear(second).reason, WIRE_UPGRADING);
	hears_nothing(first);
	keeper_says(VAULT_OUTCOME, 0, WIRE_OK);
	assert_int_equal(hear(first).status, 0);
	hears_nothing(second);
	close(first);
	close(second);
}

/* Who began it has gone; another asks when it ends, before its program has been tried. */
static void the_end_of_another_upgrade_is_no_leave_to_end(void **state)
{
	int fd = ask_for_upgrade();

	(void)state;
	keeper_says(VAULT_OUTCOME, 0, WIRE_OK);
	assert_int_equal(d.handover.state, HANDOVER_TRYING);
	keeper_says(VAULT_OUTCOME, -ENOEXEC, WIRE_PROGRAM_DIED);
	assert_int_equal(d.handover.state, HANDOVER_TRYING);
	hears_nothing(fd);
	keeper_says(VAULT_TRIED, -EBUSY, WIRE_UPGRADING);
	assert_int_equal(hear(fd).reason, WIRE_UPGRADING);
	keeper_says(VAULT_TRIED, 0, WIRE_OK); /* of nothing */
	assert_int_equal(d.handover.state, HANDOVER_NONE);
	close(fd);
}

/* Not only by hearing of it: something could not be told to the keeper. */
static void a_keeper_that_is_lost_meanwhile_ends_it(void **state)
{
	int fd = ask_for_upgrade();

	(void)state;
	shutdown(keeper, SHUT_RDWR);
	vault_drop(&vault, 5);
	handover_go_on(&d);
	assert_int_equal(hear(fd).reason, WIRE_NO_KEEPER);
	assert_int_equal(d.handover.state, HANDOVER_NONE);
	assert_int_equal(shown.keeper, 0);
	close(fd);
}

/* A successor is asked for the outcome too, which its keeper cannot tell any more. */
static void a_keeper_that_is_lost_tells_no_outcome(void **state)
{
	int fd = ask_for_upgrade();

	(void)state;
	d.handover.state = HANDOVER_NONE; /* as in a successor */
	shutdown(keeper, SHUT_RDWR);
	handover_hear(&d);
	handover_go_on(&d);
	assert_int_equal(hear(fd).reason, WIRE_NO_KEEPER);
	close(fd);
}

static void a_device_that_is_removed_is_not_upgraded(void **state)
{
	int fd = ask_for_upgrade();

	(void)state;
	listener_close(&before);
	assert_int_equal(hear(fd).reason, WIRE_STOPPING);
	close(fd);
}

/* What a successor has answered, the next one does not answer again. */
static void who_has_been_answered_is_not_asking(void **state)
{
	int fd = ask_for_upgrade();
	struct vault_message m;
	int kept;

	(void)state;
	succeed();
	assert_true(listener_awaits_upgrade(&after));
	listener_upgraded(&after, 0, WIRE_OK);
	assert_int_equal(hear(fd).status, 0);
	assert_false(listener_awaits_upgrade(&after));
	do
		assert_int_equal(vault_receive(keeper, &m, &kept), 1);
	while (m.op != VAULT_PUT || m.record.kind != VAULT_CLIENT);
	assert_int_equal(m.record.client.asks, 0);
	listener_close(&after);
	close(fd);
}

static void a_driver_that_does_not_answer_is_not_left(void **state)
{
	int fd = ask_for_upgrade();

	(void)state;
	d.buffers.registering = 1;
	keeper_says(VAULT_TRIED, 0, WIRE_OK);
	assert_true(d.buffers.paused);
	handover_go_on(&d);
	hears_nothing(fd);
	assert_true(d.handover.deadline > 0);
	d.handover.deadline = 0; /* it is over */
	handover_go_on(&d);
	assert_int_equal(hear(fd).reason, WIRE_COMMANDS_PENDING);
	assert_false(d.buffers.paused);
	d.buffers.registering = 0;
	handover_go_on(&d); /* too late */
	close(fd);
}

static void without_a_keeper_it_stays(void **state)
{
	int fd = ask_for_upgrade();

	(void)state;
	d.buffers.unregistering = 1;
	keeper_says(VAULT_TRIED, 0, WIRE_OK);
	shutdown(keeper, SHUT_RDWR);
	handover_hear(&d);
	handover_go_on(&d);
	assert_int_equal(hear(fd).reason, WIRE_NO_KEEPER);
	assert_int_equal(shown.keeper, 0);
	assert_false(d.buffers.paused);
	close(fd);
	fd = ask_for_upgrade();
	assert_int_equal(hear(fd).reason, WIRE_NO_KEEPER);
	d.buffers.unregistering = 0;
	close(fd);
}

static void when_the_driver_has_answered_it_ends(void **state)
{
	int fd = ask_for_upgrade();
	int status = -1;
	pid_t pid;

	(void)state;
	d.buffers.unregistering = 1;
	keeper_says(VAULT_TRIED, 0, WIRE_OK);
	handover_go_on(&d);
	d.buffers.unregistering = 0;
	pid = fork();
	if (pid == 0) {
		handover_go_on(&d);
		_exit(99); /* it did not end */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(keeper_hears_last(), VAULT_LEAVE);
	hears_nothing(fd); /* that is for who serves then */
	close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_client_before_hello_is_the_successors),
		T(one_that_never_said_it_must_say_it_still),
		T(a_client_after_hello_need_not_say_it_again),
		T(who_cannot_be_taken_over_is_hung_up_on),
		T(who_asked_for_an_upgrade_is_answered_by_the_successor),
		T(an_upgrade_that_cannot_be_is_refused_at_once),
		T(root_alone_stops_and_upgrades),
		T(what_does_not_work_is_not_handed_over_to),
		T(one_upgrade_at_a_time),
		T(a_second_upgrade_does_not_answer_the_first),
		T(the_end_of_another_upgrade_is_no_leave_to_end),
		T(a_keeper_that_is_lost_meanwhile_ends_it),
		T(a_keeper_that_is_lost_tells_no_outcome),
		T(a_device_that_is_removed_is_not_upgraded),
		T(who_has_been_answered_is_not_asking),
		T(a_driver_that_does_not_answer_is_not_left),
		T(without_a_keeper_it_stays),
		T(when_the_driver_has_answered_it_ends),
	};

	log_init("test", LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
