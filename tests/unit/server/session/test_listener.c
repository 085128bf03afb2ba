/* SPDX-License-Identifier: MIT */
/* The listener on a socket in a temporary folder, with a driver that always agrees. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/closer.h"
#include "server/life/worker.h"
#include "server/session/listener_internal.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/common/old_peer.h"
#include "tests/unit/common/vectors.h"

static struct registry registry;
static struct buffers b;
static struct listener l;
static char dir[32];
static int next_index;
static bool proof_is_good;
static bool registering_takes_time;
static int nowhere;	  /* where the log goes */
static void *registering; /* what the driver has not answered yet */

static int agree_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	(void)arg;
	(void)reg;
	if (registering_takes_time) {
		registering = cookie;
		return 0;
	}
	buffers_finished(&b, cookie, next_index++);
	return 0;
}

static int agree_unreg(void *arg, unsigned int index, void *cookie)
{
	(void)arg;
	(void)index;
	buffers_finished(&b, cookie, 0);
	return 0;
}

static int judge(void *host, unsigned int device, int fd, enum wire_reason *reason)
{
	(void)host;
	assert_int_equal(device, 3);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	*reason = WIRE_WRONG_DEVICE;
	return proof_is_good ? 0 : -ENODEV;
}

/* A keeper that reads nothing: it has descriptors of all connections too. */
static struct vault vault;
static int keeper;

static void open_vault(void)
{
	int socks[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks), 0);
	vault = (struct vault){ .fd = socks[0] };
	keeper = socks[1];
}

static int setup(void **state)
{
	(void)state;
	open_vault();
	strcpy(dir, "/tmp/test-listener-XXXXXX");
	assert_non_null(mkdtemp(dir));
	memset(&registry, 0, sizeof(registry));
	next_index = 0;
	proof_is_good = true;
	registering_takes_time = false;
	b = (struct buffers){ .registry = &registry,
			      .backend = { .reg = agree_reg, .unreg = agree_unreg },
			      .answer = listener_answer,
			      .answer_arg = &l,
			      .vault = &vault,
			      .max_bytes = 1 << 20 };
	l = (struct listener){ .device = 3,
			       .socket = -1,
			       .legacy = -1,
			       .limits = { .max_clients = 3,
					   .max_user_clients = 3,
					   .max_user_bytes = 65536,
					   .max_buffers = 2,
					   .max_client_bytes = 65536,
					   .hello_timeout = 5 },
			       .buffers = &b,
			       .vault = &vault,
			       .judge_proof = judge };
	return listener_open(&l, dir, NULL);
}

/* What clients sent is closed by and by. */
static void wait_until_closed(void)
{
	for (int i = 0; i < 10000 && closer_pending(); i++)
		usleep(1000);
	assert_int_equal(closer_pending(), 0);
}

static int teardown(void **state)
{
	char path[64];

	(void)state;
	listener_close(&l);
	wait_until_closed();
	assert_int_equal(b.nr, 0);
	snprintf(path, sizeof(path), "%s/ublkb3.sock", dir);
	unlink(path);
	vault_close(&vault);
	close(keeper);
	return rmdir(dir);
}

static int dial_as(uid_t uid)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/ublkb3.sock", dir);
	assert_int_equal(seteuid(uid), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(seteuid(getuid()), 0);
	listener_run(&l);
	return fd;
}

static int dial(void)
{
	return dial_as(geteuid());
}

/* Run the listener once and read the answer; -EPIPE when it hung up. */
static int receive(int fd, struct wire_reply *reply)
{
	char buf[128];
	ssize_t len;

	listener_run(&l);
	worker_wait();
	len = recv(fd, buf, sizeof(buf), 0);
	if (len <= 0)
		return len ? -errno : -EPIPE;
	/* Whoever asked for nothing newer is told nothing newer. */
	assert_true(old_shim_reads((uint8_t *)buf, (size_t)len));
	return wire_reply_decode(buf, (size_t)len, reply);
}

static struct wire_reply ask(int fd, enum wire_type type, int pass, uint64_t length, uint32_t index)
{
	struct wire_request req;
	struct wire_reply reply;

	wire_request_init(&req, type, 11);
	req.length = length;
	req.index = index;
	assert_int_equal(wire_send(fd, &req, sizeof(req), pass), 0);
	assert_int_equal(receive(fd, &reply), 0);
	assert_int_equal(reply.seq, 11);
	assert_int_equal(reply.type, type);
	return reply;
}

static int greeted(void)
{
	int fd = dial();
	struct wire_reply reply = ask(fd, WIRE_HELLO, 0, 0, 0);

	assert_int_equal(reply.status, 0);
	assert_int_equal(reply.device, 3);
	assert_int_equal(reply.max_buffers, 2);
	return fd;
}

static int memory(size_t len, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	/* Only what was touched exists. */
	for (size_t at = 0; at < len; at += 4096)
		assert_int_equal(pwrite(fd, "", 1, (off_t)at), 1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

#define SEALED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static void a_whole_session(void **state)
{
	int fd = greeted();
	int mem = memory(8192, SEALED);

	(void)state;
	assert_int_equal(ask(fd, WIRE_PING, -1, 0, 0).status, 0);
	assert_int_equal(ask(fd, WIRE_ADD, mem, 8192, 0).status, 0);
	assert_int_equal(b.nr, 1);
	assert_int_equal(ask(fd, WIRE_REMOVE, -1, 0, 5).reason, WIRE_NO_SUCH_BUFFER);
	assert_int_equal(ask(fd, WIRE_REMOVE, -1, 0, 0).status, 0);
	assert_int_equal(b.nr, 0);
	assert_int_equal(ask(fd, WIRE_ADD, mem, 8192, 0).status, 0);
	assert_int_equal(b.nr, 1);
	close(fd);
	listener_run(&l); /* the lease ends with the connection */
	assert_int_equal(b.nr, 0);
	assert_int_equal(l.nr_clients, 0);
	close(mem);
}

/* Who has proved access, by rising numbers; who asks is none of them. */
static void root_is_told_who_holds_what(void **state)
{
	int first = greeted(), second = greeted(), admin = dial();
	int mem = memory(8192, SEALED), unsealed = memory(8192, 0);
	struct wire_reply reply;

	(void)state;
	assert_int_equal(ask(second, WIRE_ADD, mem, 8192, 0).status, 0);
	assert_int_equal(ask(second, WIRE_ADD, unsealed, 8192, 0).reason, WIRE_NOT_SEALED);
	assert_int_equal(ask(second, WIRE_REMOVE, -1, 0, 77).reason, WIRE_NO_SUCH_BUFFER);
	reply = ask(admin, WIRE_CLIENTS, -1, 0, 0);
	assert_int_equal(reply.status, 0);
	assert_int_equal(reply.index, 0);
	assert_int_equal(reply.pid, getpid());
	assert_int_equal(reply.processes, getpid());
	assert_int_equal(reply.user, geteuid());
	assert_int_equal(reply.max_buffers, 0);
	assert_int_equal(reply.refused, 0);
	assert_int_equal(reply.reason, WIRE_OK);
	reply = ask(admin, WIRE_CLIENTS, -1, 0, 1);
	assert_int_equal(reply.index, 1);
	assert_int_equal(reply.max_buffers, 1);
	assert_int_equal(reply.max_bytes, 8192);
	assert_int_equal(reply.refused, 2);
	assert_int_equal(reply.reason, WIRE_NO_SUCH_BUFFER);
	assert_int_equal(ask(admin, WIRE_CLIENTS, -1, 0, 2).status, -ENOENT);
	/* Numbers do not come again. */
	close(first);
	close(second);
	listener_run(&l);
	first = greeted();
	assert_int_equal(ask(admin, WIRE_CLIENTS, -1, 0, 0).index, 3);
	close(first);
	close(admin);
	close(mem);
	close(unsealed);
}

/* What comes into being later is registered when the client says so, and nobody answers. */
static void more_is_registered_when_a_client_says_so(void **state)
{
	int fd = dial();
	int mem = memfd_create("sparse", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct wire_request req;
	struct wire_reply reply;

	(void)state;
	assert_int_equal(ftruncate(mem, 65536), 0);
	assert_int_equal(fcntl(mem, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	assert_int_equal(ask(fd, WIRE_HELLO, 0, 0, 0).features & WIRE_FEATURE_RESIDENT,
			 WIRE_FEATURE_RESIDENT);
	reply = ask(fd, WIRE_ADD, mem, 65536, 0);
	assert_int_equal(reply.status, 0);
	assert_int_equal(b.nr, 0);
	assert_int_equal(pwrite(mem, "", 1, 8192), 1);
	wire_request_init(&req, WIRE_RESIDENT, 12);
	req.index = reply.index;
	req.offset = 8192;
	req.length = 4096;
	assert_int_equal(wire_send(fd, &req, sizeof(req), -1), 0);
	assert_int_equal(receive(fd, &reply), -EAGAIN);
	for (int i = 0; i < 1000 && !b.nr; i++) {
		buffers_tick(&b, 0);
		worker_wait();
		usleep(1000);
	}
	assert_int_equal(b.bytes, 4096);
	close(mem);
	close(fd);
}

/* ---- descriptors that are no good, by what they are ---- */

static int sealed_for(int flags)
{
	int fd = memory(8192, SEALED);
	char path[32];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	close(fd);
	return again;
}

static int make_sealed(void)
{
	return memory(8192, SEALED);
}

static int make_unsealed(void)
{
	return memory(8192, 0);
}

static int make_shrinkable(void)
{
	return memory(8192, F_SEAL_GROW | F_SEAL_SEAL);
}

static int make_resealable(void)
{
	return memory(8192, F_SEAL_GROW | F_SEAL_SHRINK);
}

static int make_read_only(void)
{
	return sealed_for(O_RDONLY);
}

static int make_write_only(void)
{
	return sealed_for(O_WRONLY);
}

static int make_path(void)
{
	return sealed_for(O_PATH);
}

static int make_pipe(void)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	close(fds[1]);
	return fds[0];
}

static int make_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int make_directory(void)
{
	return open("/", O_RDONLY | O_DIRECTORY);
}

static int make_device(void)
{
	return open("/dev/zero", O_RDWR);
}

static int make_file(void)
{
	return open("/proc/self/exe", O_RDONLY);
}

static const struct no_good {
	const char *what;
	int (*make)(void);
	uint64_t length;
	enum wire_reason reason;
} no_good[] = {
	{ "a memfd without seals", make_unsealed, 8192, WIRE_NOT_SEALED },
	{ "a memfd that can shrink", make_shrinkable, 8192, WIRE_NOT_SEALED },
	{ "a memfd whose seals are not", make_resealable, 8192, WIRE_NOT_SEALED },
	{ "a memfd open for reading", make_read_only, 8192, WIRE_NOT_WRITABLE },
	{ "a memfd open for writing only", make_write_only, 8192, WIRE_NOT_WRITABLE },
	{ "a memfd as O_PATH", make_path, 8192, WIRE_NOT_MEMFD },
	{ "a pipe", make_pipe, 4096, WIRE_NOT_MEMFD },
	{ "a socket", make_socket, 4096, WIRE_NOT_MEMFD },
	{ "a directory", make_directory, 4096, WIRE_NOT_MEMFD },
	{ "a device", make_device, 4096, WIRE_NOT_MEMFD },
	{ "a file on a disk", make_file, 4096, WIRE_NOT_MEMFD },
	{ "an odd length", make_sealed, 8191, WIRE_BAD_RANGE },
	{ "more than there is", make_sealed, 12288, WIRE_BAD_RANGE },
	{ "nothing", make_sealed, 0, WIRE_BAD_RANGE },
	{ "a length that overflows", make_sealed, UINT64_MAX - 4095, WIRE_BAD_RANGE },
	{ "more than the kernel takes", make_sealed, (4ULL << 30) + 4096, WIRE_BAD_RANGE },
};

#define NR_NO_GOOD (sizeof(no_good) / sizeof(no_good[0]))

static void what_is_no_good_memory_is_refused(void **state)
{
	int fd = greeted();
	int free_before;

	(void)state;
	wait_until_closed();
	free_before = dup(0);
	close(free_before);
	for (unsigned int i = 0; i < NR_NO_GOOD; i++) {
		int mem = no_good[i].make();
		struct wire_reply reply = ask(fd, WIRE_ADD, mem, no_good[i].length, 0);
		int free_now;

		if (reply.reason != no_good[i].reason)
			fail_msg("%s: %s", no_good[i].what, wire_reason_text(reply.reason));
		assert_true(reply.status < 0);
		close(mem);
		wait_until_closed();
		free_now = dup(0);
		assert_int_equal(free_now, free_before); /* the listener keeps none */
		close(free_now);
	}
	assert_int_equal(b.nr, 0);
	assert_int_equal(l.refused, NR_NO_GOOD);
	close(fd);
}

/* ---- descriptors whose last close takes as long as their owner likes ---- */

/* A TCP socket that lingers for an hour, as *@peer does not read; both ours. */
static int make_lingering(int *peer)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 3600 };
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int server = socket(AF_INET, SOCK_STREAM, 0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	static char bytes[65536];

	assert_int_equal(bind(server, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(getsockname(server, (struct sockaddr *)&addr, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, len), 0);
	*peer = accept(server, NULL, NULL);
	assert_true(*peer >= 0);
	close(server);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	return fd;
}

static void send_three(int sock, int fd)
{
	struct wire_request req;
	struct iovec iov = { .iov_base = &req, .iov_len = sizeof(req) };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(3 * sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	wire_request_init(&req, WIRE_HELLO, 1);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(3 * sizeof(int));
	/* Only the last is the one: a kernel that has no room drops it for us. */
	memcpy(CMSG_DATA(cmsg), (int[]){ 0, 0, fd }, 3 * sizeof(int));
	assert_int_equal(sendmsg(sock, &msg, 0), (ssize_t)sizeof(req));
}

static void send_as_proof(int sock, int fd)
{
	struct wire_request req;

	wire_request_init(&req, WIRE_HELLO, 1);
	assert_int_equal(wire_send(sock, &req, sizeof(req), fd), 0);
}

static void send_empty(int sock, int fd)
{
	assert_int_equal(wire_send(sock, "", 0, fd), 0);
}

/* Behind what ends the connection, so that nobody ever reads it. */
static void send_after_nonsense(int sock, int fd)
{
	assert_int_equal(wire_send(sock, "nonsense", 8, -1), 0);
	assert_int_equal(wire_send(sock, "", 0, -1), 0);
	send_as_proof(sock, fd);
}

/* With something unread, an empty record too, and without. */
static void ended_connections_are_closed_whatever_their_kind(void **state)
{
	const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };
	char byte;

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		int socks[2];

		assert_int_equal(socketpair(AF_UNIX, types[i / 2], 0, socks), 0);
		if (i % 2) {
			assert_int_equal(wire_send(socks[0], "", 0, -1), 0);
			assert_int_equal(wire_send(socks[0], "unread", 6, 0), 0);
		}
		closer_hang_up(0, socks[1]);
		assert_true(recv(socks[0], &byte, 1, 0) <= 0);
		wait_until_closed();
		assert_int_equal(fcntl(socks[1], F_GETFD), -1);
		close(socks[0]);
	}
}

static void a_close_that_takes_long_holds_up_nobody(void **state)
{
	void (*const ways[])(int sock, int fd) = { send_as_proof, send_three, send_empty,
						   send_after_nonsense };
	int other = greeted();

	(void)state;
	proof_is_good = false;
	alarm(240); /* else it would be an hour */
	for (unsigned int i = 0; i < 4; i++) {
		int peer;
		int fd = make_lingering(&peer);
		int sock = dial();

		ways[i](sock, fd);
		close(fd);
		listener_run(&l);
		close(sock);
		listener_run(&l);
		assert_int_equal(ask(other, WIRE_PING, -1, 0, 0).status, 0);
		for (int wait = 0; wait < 50; wait++) {
			assert_true(closer_pending() > 0);
			usleep(1000);
		}
		close(peer); /* with bytes unread: that resets the other end */
		wait_until_closed();
	}
	alarm(0);
	close(other);
}

struct long_look {
	struct worker_job job; /* first */
	int until;	       /* somebody closes the other end */
};

static void look_for_long(struct worker_job *job)
{
	char byte;

	while (read(((struct long_look *)job)->until, &byte, 1) > 0)
		;
}

/* What asks for a look at memory waits for it; nobody else does, not even its own client. */
static void a_look_that_takes_long_holds_up_nobody(void **state)
{
	const enum wire_type looks[] = { WIRE_SCAN, WIRE_ADD };
	const uint64_t len = 64UL << 20; /* no look at a little memory takes long */
	int mem = memfd_create("much", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int fd = greeted();

	(void)state;
	assert_int_equal(ftruncate(mem, (off_t)len), 0);
	assert_int_equal(fcntl(mem, F_ADD_SEALS, SEALED), 0);
	b.max_bytes = l.limits.max_client_bytes = l.limits.max_user_bytes = len;
	for (unsigned int i = 0; i < 2; i++) {
		struct long_look *look = calloc(1, sizeof(*look));
		struct wire_request req;
		struct wire_reply reply;
		int ends[2];

		assert_int_equal(pipe(ends), 0);
		*look = (struct long_look){ { .run = look_for_long }, ends[0] };
		assert_int_equal(worker_start(geteuid(), WORKER_LOOK, &look->job), 0);
		wire_request_init(&req, looks[i], 1);
		req.length = looks[i] == WIRE_ADD ? len : 0;
		assert_int_equal(
			wire_send(fd, &req, sizeof(req), looks[i] == WIRE_ADD ? mem : -1), 0);
		listener_run(&l);
		wire_request_init(&req, WIRE_PING, 2);
		assert_int_equal(wire_send(fd, &req, sizeof(req), -1), 0);
		listener_run(&l);
		assert_int_equal(recv(fd, &reply, sizeof(reply), 0), sizeof(reply));
		assert_int_equal(reply.type, WIRE_PING);
		assert_int_equal(recv(fd, &reply, sizeof(reply), 0), -1);
		close(ends[1]);
		assert_int_equal(receive(fd, &reply), 0);
		assert_int_equal(reply.type, looks[i]);
		close(ends[0]);
	}
	close(fd);
	close(mem);
}

/* The kernel has no such pages set aside on this machine, or they are registered. */
static void huge_pages_that_are_not_there_are_refused(void **state)
{
	int fd = greeted();
	int mem = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
	struct wire_reply reply;

	(void)state;
	if (mem < 0 || ftruncate(mem, 1 << 30) < 0 || fcntl(mem, F_ADD_SEALS, SEALED) < 0)
		skip();
	l.limits.max_client_bytes = b.max_bytes = 4ULL << 30;
	reply = ask(fd, WIRE_ADD, mem, 1 << 30, 0);
	if (reply.status)
		assert_int_equal(reply.reason, WIRE_NO_MEMORY);
	close(mem);
	close(fd);
}

static void memory_for_writing_to_the_device_wants_a_proof_for_writing(void **state)
{
	struct wire_request req;
	struct wire_reply reply;
	int fd = dial();
	int proof = open("/dev/null", O_RDONLY);
	int mem = memory(8192, SEALED);

	(void)state;
	assert_int_equal(ask(fd, WIRE_HELLO, proof, 0, 0).status, 0);
	wire_request_init(&req, WIRE_ADD, 11);
	req.length = 8192;
	req.flags = WIRE_ADD_READ_ONLY;
	assert_int_equal(wire_send(fd, &req, sizeof(req), mem), 0);
	assert_int_equal(receive(fd, &reply), 0);
	assert_int_equal(reply.reason, WIRE_NOT_WRITABLE);
	assert_int_equal(ask(fd, WIRE_ADD, mem, 8192, 0).status, 0);
	close(proof);
	close(mem);
	close(fd);
}

static void budgets_of_a_client_hold(void **state)
{
	int fd = greeted();
	int big = memory(131072, SEALED);
	uint32_t number;
	int mem[3] = { memory(4096, SEALED), memory(4096, SEALED), memory(4096, SEALED) };

	(void)state;
	/* As much of it as may be, and no more. */
	assert_int_equal(ask(fd, WIRE_ADD, big, 131072, 0).status, 0);
	assert_int_equal(b.bytes, 65536);
	assert_int_equal(ask(fd, WIRE_ADD, mem[0], 4096, 0).reason, WIRE_OVER_BUDGET);
	assert_int_equal(ask(fd, WIRE_REMOVE, -1, 0, 0).status, 0);
	number = ask(fd, WIRE_ADD, mem[0], 4096, 0).index;
	assert_int_equal(ask(fd, WIRE_ADD, mem[1], 4096, 0).status, 0);
	assert_int_equal(ask(fd, WIRE_ADD, mem[2], 4096, 0).reason, WIRE_OVER_BUDGET);
	assert_int_equal(ask(fd, WIRE_REMOVE, -1, 0, number).status, 0);
	assert_int_equal(ask(fd, WIRE_ADD, mem[2], 4096, 0).status, 0);
	for (int i = 0; i < 3; i++)
		close(mem[i]);
	close(big);
	close(fd);
}

/* Another user's clients count together; root's are not among them. */
static void budgets_of_a_user_hold(void **state)
{
	struct wire_reply reply;
	int mem = memory(65536, SEALED);
	int more = memory(4096, SEALED);
	int fds[4];

	(void)state;
	if (geteuid() != 0)
		skip();
	l.limits.max_clients = 8;
	l.limits.max_user_clients = 2;
	chmod(dir, 0755);
	for (int i = 0; i < 3; i++)
		fds[i] = dial_as(65534);
	fds[3] = greeted();
	assert_int_equal(receive(fds[2], &reply), -EPIPE);
	assert_int_equal(ask(fds[0], WIRE_HELLO, 0, 0, 0).status, 0);
	assert_int_equal(ask(fds[1], WIRE_HELLO, 0, 0, 0).status, 0);
	assert_int_equal(ask(fds[0], WIRE_ADD, mem, 65536, 0).status, 0);
	assert_int_equal(ask(fds[1], WIRE_ADD, more, 4096, 0).reason, WIRE_OVER_BUDGET);
	assert_int_equal(ask(fds[3], WIRE_ADD, more, 4096, 0).status, 0);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	close(mem);
	close(more);
}

static char *share(size_t len)
{
	char *shared = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(shared, MAP_FAILED);
	return memset(shared, 1, len);
}

/* Once, however many connections scan it; and no more than the user may have. */
static void what_scans_find_counts_for_the_user(void **state)
{
	const size_t len = 2 << 20;
	char *shared = share(len);
	char *more;
	int fds[2];

	(void)state;
	if (geteuid() != 0)
		skip();
	b.max_bytes = l.limits.max_client_bytes = 8 << 20;
	l.limits.max_user_bytes = 3 << 20;
	chmod(dir, 0755);
	for (int i = 0; i < 2; i++) {
		struct wire_reply reply;

		fds[i] = dial_as(65534);
		assert_int_equal(ask(fds[i], WIRE_HELLO, 0, 0, 0).status, 0);
		reply = ask(fds[i], WIRE_SCAN, -1, 0, 0);
		assert_int_equal(reply.max_bytes, len);
		assert_int_equal(b.bytes, len);
	}
	more = share(len);
	assert_int_equal(ask(fds[1], WIRE_SCAN, -1, 0, 0).status, 0);
	assert_int_equal(b.bytes, l.limits.max_user_bytes);
	close(fds[1]);
	listener_run(&l);
	assert_int_equal(b.bytes, len);
	assert_int_equal(ask(fds[0], WIRE_SCAN, -1, 0, 0).status, 0);
	assert_int_equal(b.bytes, l.limits.max_user_bytes);
	close(fds[0]);
	listener_run(&l);
	assert_int_equal(b.bytes, 0);
	munmap(shared, len);
	munmap(more, len);
}

static long second_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

static void wait_for_next_second(void)
{
	for (long before = second_now(); second_now() == before;)
		usleep(1000);
}

static void read_log(int file, char *text, size_t size)
{
	ssize_t n = pread(file, text, size - 1, 0);

	assert_true(n >= 0 && n < (ssize_t)size - 1);
	text[n] = '\0';
}

/* Some of what a client is refused is logged, and how many more there were. */
static void a_log_is_not_filled_and_says_what_it_leaves_out(void **state)
{
	enum { TIMES = 300 };
	static char text[1 << 16];
	unsigned int said = 0, left_out = 0, more;
	int fd = greeted();
	int full = memory(64 << 10, SEALED); /* all that a client may have */
	int mem = memory(4 << 10, SEALED);
	int log = memfd_create("log", MFD_CLOEXEC);
	long begin;

	(void)state;
	wait_for_next_second();
	l.limits.max_buffers = 10;
	assert_int_equal(ask(fd, WIRE_ADD, full, 64 << 10, 0).status, 0);
	ask(fd, WIRE_ADD, mem, 4 << 10, 0); /* says what others left out */
	begin = second_now();
	log_set_fd(log);
	for (int i = 0; i < TIMES; i++)
		assert_int_equal(ask(fd, WIRE_ADD, mem, 4 << 10, 0).status, -EDQUOT);
	wait_for_next_second();
	ask(fd, WIRE_ADD, mem, 4 << 10, 0);
	log_set_fd(nowhere);
	read_log(log, text, sizeof(text));
	for (char *rest, *line = strtok_r(text, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest)) {
		if (strstr(line, "limit --max-client-bytes 65536"))
			said++;
		else if (sscanf(line, "%*s %u more lines about clients", &more) == 1)
			left_out += more;
		else
			fail_msg("says '%s'", line);
	}
	assert_int_equal(said + left_out, TIMES + 1);
	assert_true(said >= LISTENER_LINES);
	assert_true(said <= (unsigned long)(second_now() - begin + 1) * LISTENER_LINES);
	close(log);
	close(full);
	close(mem);
	close(fd);
}

static void what_the_kernel_refuses_uses_up_no_budget(void **state)
{
	int fd = greeted();
	int mem = memory(8192, SEALED);
	struct wire_request req;
	struct wire_reply reply;

	(void)state;
	registering_takes_time = true;
	for (int i = 0; i < 5; i++) { /* more often than max_buffers */
		wire_request_init(&req, WIRE_ADD, 11);
		req.length = 8192;
		assert_int_equal(wire_send(fd, &req, sizeof(req), mem), 0);
		listener_run(&l);
		worker_wait();
		assert_int_equal(b.nr, 1);
		buffers_finished(&b, registering, -EEXIST);
		assert_int_equal(receive(fd, &reply), 0);
		assert_int_equal(reply.status, -EEXIST);
		assert_int_equal(reply.reason, WIRE_KERNEL_REFUSED);
	}
	registering_takes_time = false;
	assert_int_equal(ask(fd, WIRE_ADD, mem, 8192, 0).status, 0);
	close(mem);
	close(fd);
}

static void without_a_good_proof_there_is_no_session(void **state)
{
	struct wire_reply reply;
	int fd = dial();

	(void)state;
	proof_is_good = false;
	assert_int_equal(ask(fd, WIRE_HELLO, 0, 0, 0).reason, WIRE_WRONG_DEVICE);
	assert_int_equal(receive(fd, &reply), -EPIPE);
	close(fd);
	fd = dial();
	assert_int_equal(ask(fd, WIRE_PING, -1, 0, 0).reason, WIRE_HELLO_FIRST);
	assert_int_equal(receive(fd, &reply), -EPIPE);
	close(fd);
}

static void nonsense_ends_the_connection_only(void **state)
{
	int good = greeted();
	struct wire_reply reply;
	int bad = dial();

	(void)state;
	assert_int_equal(wire_send(bad, "nonsense", 8, -1), 0);
	assert_int_equal(receive(bad, &reply), 0);
	assert_int_equal(reply.reason, WIRE_BAD_MESSAGE);
	assert_int_equal(receive(bad, &reply), -EPIPE);
	assert_int_equal(ask(good, WIRE_PING, -1, 0, 0).status, 0);
	close(bad);
	close(good);
}

/* ---- docs/wire-vectors ---- */

static void send_vector(int sock, const struct vector *v)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)v->bytes, .iov_len = v->len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	assert_true(v->nr_fds <= 2);
	if (v->nr_fds) { /* so many times descriptor 0 */
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(v->nr_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(v->nr_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &msg, MSG_NOSIGNAL), v->len);
}

/* What is wrong by its form is answered as the specification says, on the wire too. */
static void check_vector(const struct vector *v)
{
	bool declined = v->verdict == VECTOR_DECLINED;
	struct wire_reply reply;
	int fd;

	if (v->reply || v->verdict == VECTOR_ACCEPTED)
		return;
	print_message("%s\n", v->name);
	fd = greeted();
	send_vector(fd, v);
	assert_int_equal(receive(fd, &reply), 0);
	assert_int_equal(reply.type, vector_field(v, "type"));
	assert_int_equal(reply.seq, vector_field(v, "seq"));
	assert_int_equal(reply.status, declined ? -EOPNOTSUPP : -EPROTO);
	assert_int_equal(reply.reason, declined ? WIRE_NO_FEATURE : v->reason);
	if (declined)
		assert_int_equal(ask(fd, WIRE_PING, -1, 0, 0).status, 0);
	else
		assert_int_equal(receive(fd, &reply), -EPIPE);
	close(fd);
	listener_run(&l);
	/* Before HELLO even what is only newer ends it. */
	fd = dial();
	send_vector(fd, v);
	assert_int_equal(receive(fd, &reply), 0);
	assert_int_equal(reply.reason, declined ? WIRE_HELLO_FIRST : v->reason);
	assert_int_equal(receive(fd, &reply), -EPIPE);
	close(fd);
	listener_run(&l);
}

static void what_has_no_good_form_is_answered_as_specified(void **state)
{
	(void)state;
	l.limits.max_clients = 100;
	l.limits.max_user_clients = 100;
	vectors_each(check_vector);
}

/* ---- an older shim, byte by byte ---- */

static void say(int sock, const char *name, uint32_t index, int pass)
{
	struct vector v = vector_named(name);

	assert_int_equal(old_server_refuses(v.bytes, v.len, v.nr_fds), 0);
	memcpy(v.bytes + 32, &index, sizeof(index));
	assert_int_equal(wire_send(sock, v.bytes, v.len, pass), 0);
}

static struct wire_reply hear(int sock, unsigned int type)
{
	struct wire_reply reply;
	int ret = -EAGAIN;

	for (int i = 0; i < 10 && ret == -EAGAIN; i++)
		ret = receive(sock, &reply);
	assert_int_equal(ret, 0);
	assert_int_equal(reply.type, type);
	assert_int_equal(reply.status, 0);
	return reply;
}

/* The first is sent before anything is read, as when the server was busy. */
static void an_older_shim_is_served(void **state)
{
	int fd = dial();
	int mem = memfd_create("arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint32_t index;

	(void)state;
	assert_int_equal(ftruncate(mem, 16 << 20), 0);
	assert_int_equal(pwrite(mem, "", 1, 4096), 1);
	assert_int_equal(fcntl(mem, F_ADD_SEALS, SEALED), 0);
	say(fd, "hello", 0, 0);
	say(fd, "add", 0, mem);
	assert_int_equal(hear(fd, 1).device, 3);
	index = hear(fd, 2).index;
	say(fd, "ping", 0, -1);
	hear(fd, 4);
	assert_int_equal(b.nr, 1);
	say(fd, "resident", index, -1); /* is not answered */
	say(fd, "add", 0, mem);		/* once more, and then the first one back */
	assert_int_not_equal(hear(fd, 2).index, index);
	say(fd, "remove", index, -1);
	assert_int_equal(hear(fd, 3).index, index);
	assert_int_equal(b.nr, 1);
	close(fd);
	listener_run(&l);
	assert_int_equal(b.nr, 0);
	close(mem);
}

static void silent_clients_hold_up_nobody_and_are_hung_up_on(void **state)
{
	int silent = dial();
	int fd = greeted();
	struct wire_reply reply;

	(void)state;
	assert_int_equal(ask(fd, WIRE_PING, -1, 0, 0).status, 0);
	l.limits.hello_timeout = 0;
	close(fd);
	fd = dial();
	/* the silent one's deadline was set when it came; bring it forward */
	for (int i = 0; i < 7000 && receive(silent, &reply) == -EAGAIN; i++)
		usleep(1000);
	assert_int_equal(receive(silent, &reply), -EPIPE);
	close(silent);
	close(fd);
}

static unsigned int events(void)
{
	struct epoll_event event;

	return (unsigned int)epoll_wait(l.epoll, &event, 1, 0);
}

/* Without descriptors nobody can be let in; whoever waits does not wake us all the time. */
static void accepting_does_not_spin_without_descriptors(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct rlimit before, none;
	struct wire_reply reply;
	int fd = greeted();
	int waits = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);

	(void)state;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/ublkb3.sock", dir);
	getrlimit(RLIMIT_NOFILE, &before);
	none = before;
	none.rlim_cur = (rlim_t)waits + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(connect(waits, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(events(), 1);
	listener_run(&l);
	assert_int_equal(events(), 0);
	assert_int_equal(ask(fd, WIRE_PING, -1, 0, 0).status, 0); /* others are served */
	setrlimit(RLIMIT_NOFILE, &before);
	for (int i = 0; i < 5000 && l.nr_clients < 2; i++) {
		listener_run(&l);
		usleep(1000);
	}
	assert_int_equal(l.nr_clients, 2);
	assert_int_equal(receive(waits, &reply), -EAGAIN);
	close(waits);
	close(fd);
}

static void everybody_can_connect_whatever_the_umask(void **state)
{
	struct stat st;
	char path[64];
	mode_t before;

	(void)state;
	listener_close(&l);
	snprintf(path, sizeof(path), "%s/ublkb3.sock", dir);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
	l.socket = -1;
	before = umask(077);
	assert_int_equal(listener_open(&l, dir, NULL), 0);
	umask(before);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
}

static void connections_beyond_the_limit_are_closed(void **state)
{
	int fds[4];
	struct wire_reply reply;

	(void)state;
	for (int i = 0; i < 4; i++)
		fds[i] = dial();
	assert_int_equal(l.nr_clients, 3);
	assert_int_equal(receive(fds[3], &reply), -EPIPE);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

/* Also what the keeper still holds open is over. */
static void a_client_that_is_hung_up_on_is_not_served(void **state)
{
	int fd = greeted();
	struct wire_request req;
	struct wire_reply reply;

	(void)state;
	wire_request_init(&req, WIRE_PING, 1);
	req.magic++;
	assert_int_equal(wire_send(fd, &req, sizeof(req), -1), 0);
	listener_run(&l);
	assert_int_equal(receive(fd, &reply), 0);
	assert_int_equal(reply.reason, WIRE_BAD_MESSAGE);
	assert_int_equal(receive(fd, &reply), -EPIPE);
	wire_request_init(&req, WIRE_PING, 2);
	assert_int_equal(wire_send(fd, &req, sizeof(req), -1), -EPIPE);
	listener_run(&l);
	assert_int_equal(l.nr_clients, 0);
	close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_whole_session),
		T(root_is_told_who_holds_what),
		T(more_is_registered_when_a_client_says_so),
		T(what_is_no_good_memory_is_refused),
		T(ended_connections_are_closed_whatever_their_kind),
		T(a_close_that_takes_long_holds_up_nobody),
		T(a_look_that_takes_long_holds_up_nobody),
		T(huge_pages_that_are_not_there_are_refused),
		T(memory_for_writing_to_the_device_wants_a_proof_for_writing),
		T(budgets_of_a_client_hold),
		T(budgets_of_a_user_hold),
		T(what_scans_find_counts_for_the_user),
		T(a_log_is_not_filled_and_says_what_it_leaves_out),
		T(what_the_kernel_refuses_uses_up_no_budget),
		T(without_a_good_proof_there_is_no_session),
		T(nonsense_ends_the_connection_only),
		T(what_has_no_good_form_is_answered_as_specified),
		T(an_older_shim_is_served),
		T(silent_clients_hold_up_nobody_and_are_hung_up_on),
		T(accepting_does_not_spin_without_descriptors),
		T(everybody_can_connect_whatever_the_umask),
		T(connections_beyond_the_limit_are_closed),
		T(a_client_that_is_hung_up_on_is_not_served),
	};

	nowhere = open("/dev/null", O_WRONLY);
	log_set_fd(nowhere);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
