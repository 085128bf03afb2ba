/* SPDX-License-Identifier: MIT */
/*
 * Clients that do anything, in any order, against the whole listener: real sockets and
 * descriptors, and a driver that answers when and what the input says.
 *
 * Afterwards everybody hangs up, and nothing may be left: no buffer, no byte of the
 * budget, no published index, no descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/closer.h"
#include "server/life/worker.h"
#include "server/memory/guard.h"
#include "server/session/listener.h"

#define CLIENTS 6
#define PAGE 4096U
#define FDS_MAX 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the input, byte by byte ---- */

static const uint8_t *input, *input_end;

static uint8_t take(void)
{
	return input < input_end ? *input++ : 0;
}

static void take_bytes(void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = take();
}

/* ---- the driver ---- */

static struct registry registry;
static struct buffers buffers;
static struct listener listener;

static struct asked {
	void *cookie;
	bool registering;
	unsigned int index;
} asked[64];
static unsigned int nr_asked;
static bool taken[256]; /* indices */

static int driver_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	(void)arg;
	if (!reg->len || reg->len % PAGE || nr_asked == 64)
		abort();
	asked[nr_asked++] = (struct asked){ cookie, true, 0 };
	return 0;
}

static int driver_unreg(void *arg, unsigned int index, void *cookie)
{
	(void)arg;
	if (nr_asked == 64)
		return -EAGAIN;
	if (!taken[index])
		abort(); /* never registered, or unregistered twice */
	asked[nr_asked++] = (struct asked){ cookie, false, index };
	return 0;
}

static int lowest_free(void)
{
	int i = 0;

	while (taken[i])
		i++;
	taken[i] = true;
	return i;
}

static void driver_answers(int error)
{
	struct asked a;

	if (!nr_asked)
		return;
	a = asked[0];
	memmove(asked, asked + 1, --nr_asked * sizeof(a));
	if (a.registering) {
		buffers_finished(&buffers, a.cookie, error ? error : lowest_free());
		return;
	}
	if (!error)
		taken[a.index] = false;
	buffers_finished(&buffers, a.cookie, error == -EINTR ? error : 0);
	if (error && error != -EINTR)
		taken[a.index] = false;
}

static int judge(void *host, unsigned int device, int fd, enum wire_reason *ret_reason)
{
	(void)host, (void)device;
	*ret_reason = WIRE_WRONG_DEVICE;
	return fcntl(fd, F_GETFD) < 0 ? -EBADF : take() == 1 ? -ENODEV : 0;
}

/* ---- descriptors of all kinds ---- */

static int memory(unsigned int pages, int seals)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (ftruncate(fd, (off_t)(pages * PAGE)) < 0)
		abort();
	/* Some pages exist. */
	for (unsigned int i = 0; i < pages; i++)
		if (i != 3 && pwrite(fd, "", 1, i * PAGE) != 1)
			abort();
	if (fcntl(fd, F_ADD_SEALS, seals) < 0)
		abort();
	return fd;
}

static int pipe_end(void)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		abort();
	close(fds[1]);
	return fds[0];
}

static int descriptor(uint8_t kind)
{
	switch (kind % 10) {
	case 0:
	case 1:
	case 2:
		return memory(1 + kind / 10 % 8, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	case 3:
		return memory(2, F_SEAL_SHRINK);
	case 4:
		return memory(0, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	case 5:
		return pipe_end();
	case 6:
		return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	case 7:
		return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	case 8:
		return open("/dev/null", O_PATH | O_CLOEXEC);
	default:
		return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	}
}

/* ---- clients ---- */

static char directory[] = "/tmp/fuzz-listener-XXXXXX";
static int clients[CLIENTS];

static void dial(int *client)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (*client >= 0)
		return;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/ublkb0.sock", directory);
	*client = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(*client, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(*client);
		*client = -1;
	}
}

static void hang_up_on(int *client)
{
	if (*client >= 0)
		close(*client);
	*client = -1;
}

static void send_with(int client, const void *buf, size_t len, unsigned int nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(4 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[4];

	for (unsigned int i = 0; i < nr_fds; i++)
		fds[i] = descriptor(take());
	if (nr_fds) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	sendmsg(client, &msg, MSG_NOSIGNAL);
	for (unsigned int i = 0; i < nr_fds; i++)
		close(fds[i]);
}

static void send_raw(int client)
{
	uint8_t buf[80];
	size_t len = take() % sizeof(buf);

	take_bytes(buf, len);
	send_with(client, buf, len, take() % 5);
}

static void send_request(int client)
{
	struct wire_request req;
	uint8_t type = take() % 9;

	if (type == 8)
		type = WIRE_RESIDENT;

	/* Not ATTACH: the input would choose any process of this machine. */
	wire_request_init(&req, type == WIRE_ATTACH ? WIRE_HELLO : type, take());
	if (type == WIRE_ADD) {
		req.length = (uint64_t)(take() % 9) * PAGE + (take() == 7);
		req.offset = (uint64_t)(take() % 9) * PAGE;
		req.flags = take() % 3;
	}
	if (type == WIRE_REMOVE || type == WIRE_ATTACHED || type == WIRE_RESIDENT)
		req.index = take();
	send_with(client, &req, sizeof(req),
		  type == WIRE_HELLO || type == WIRE_ADD || type == WIRE_ATTACH ? 1 : 0);
}

static void read_answers(int client)
{
	char buf[128];

	while (recv(client, buf, sizeof(buf), 0) > 0)
		;
}

static void step(void)
{
	uint8_t what = take();
	int *client = &clients[what / 8 % CLIENTS];

	switch (what % 8) {
	case 0:
		dial(client);
		break;
	case 1:
		hang_up_on(client);
		break;
	case 2:
		send_raw(*client);
		break;
	case 3:
	case 4:
		send_request(*client);
		break;
	case 5:
		listener_run(&listener);
		if (what & 0x80)
			worker_wait();
		break;
	case 6:
		driver_answers(what & 0x80 ? -(int)(take() % 40) : 0);
		break;
	case 7:
		read_answers(*client);
		break;
	}
}

/* ---- one input ---- */

static void set_up(void)
{
	memset(&registry, 0, sizeof(registry));
	memset(taken, 0, sizeof(taken));
	nr_asked = 0;
	buffers = (struct buffers){
		.registry = &registry,
		.backend = { .reg = driver_reg, .unreg = driver_unreg },
		.answer = listener_answer,
		.answer_arg = &listener,
		.max_bytes = 24 * PAGE,
	};
	listener = (struct listener){
		.socket = -1,
		.legacy = -1,
		.limits = { .max_clients = 4,
			    .max_buffers = 3,
			    .max_client_bytes = 16 * PAGE,
			    .hello_timeout = 1000 },
		.buffers = &buffers,
		.judge_proof = judge,
	};
	if (listener_open(&listener, directory, NULL))
		abort();
	for (unsigned int i = 0; i < CLIENTS; i++)
		clients[i] = -1;
}

static void take_down(void)
{
	for (unsigned int i = 0; i < CLIENTS; i++)
		hang_up_on(&clients[i]);
	/* One connection and one message of each client a round. */
	for (unsigned int i = 0; i < CLIENTS || (listener.nr_clients && i < 1000); i++)
		listener_run(&listener);
	do {
		worker_wait();
		driver_answers(0);
	} while (nr_asked || worker_pending(WORKER_LOOK));
	buffers_tick(&buffers, 0);
	if (listener.nr_clients || buffers.nr || buffers.bytes || registry_any(&registry))
		abort();
	listener_close(&listener);
	buffers_close(&buffers);
	while (closer_pending())
		usleep(50);
}

static unsigned int open_descriptors(void)
{
	unsigned int nr = 0;

	for (int fd = 0; fd < FDS_MAX; fd++)
		nr += fcntl(fd, F_GETFD) >= 0;
	return nr;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool made;
	unsigned int before;

	if (!made) {
		log_init("fuzz", LOG_ERROR);
		made = mkdtemp(directory) != NULL;
		/* Opened once for the process, and kept. */
		guard_open();
		if (worker_fd() < 0)
			abort();
	}
	before = open_descriptors();
	input = data;
	input_end = data + size;
	set_up();
	while (input < input_end)
		step();
	take_down();
	if (open_descriptors() != before)
		abort();
	return 0;
}
