/* SPDX-License-Identifier: MIT */
/*
 * answers [SECONDS] - how long a client waits for an answer while others do their worst.
 *
 * The whole listener with its threads, on this machine's kernel, and a driver that always
 * agrees; a client that asks PING every two milliseconds; and beside it, one kind at a time, a
 * process that attacks. Prints the distribution, and once more without the time for which the
 * control thread and the client could have run but no processor was free: that is the
 * machine's, what is left is ours. The shim gives up after 200 ms
 * (UBLKZC_CONNECT_MS); no time is asserted, because machines are busy.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/session/listener.h"

#define MIB (1UL << 20)
#define PINGS_MAX 100000

static struct registry registry;
static struct buffers buffers;
static struct listener listener;
static char dir[] = "/tmp/answers-XXXXXX";
static atomic_bool serving, stop;
static int next_index;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- the server ---- */

static int agree_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	(void)arg, (void)reg;
	buffers_finished(&buffers, cookie, next_index);
	next_index = (next_index + 1) % UAPI_SHMEM_BUF_INDEX_MAX;
	return 0;
}

static int agree_unreg(void *arg, unsigned int index, void *cookie)
{
	(void)arg, (void)index;
	buffers_finished(&buffers, cookie, 0);
	return 0;
}

static int agree_proof(void *host, unsigned int device, int fd, enum wire_reason *ret_reason)
{
	(void)host, (void)device, (void)fd;
	*ret_reason = WIRE_OK;
	return 0;
}

static double now_ms(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* For which a thread of this process was ready and not running, ms (sched(5): schedstat). */
static double queued_ms(int fd)
{
	char text[128];
	unsigned long long ran, queued = 0;
	ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

	text[len > 0 ? len : 0] = '\0';
	if (sscanf(text, "%llu %llu", &ran, &queued) != 2)
		die("schedstat");
	return (double)queued / 1e6;
}

static int control_schedstat = -1, client_schedstat = -1;

/* Processor time of the control thread's longest round: what it does by itself, ms. */
static _Atomic double longest_round;

/* As device.c does; and the device copies requests all the time. */
static void *serve(void *arg)
{
	struct pollfd p = { .fd = listener.epoll, .events = POLLIN };
	uint64_t copied = 0;
	int wait = 0;

	(void)arg;
	control_schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	atomic_store(&serving, true);
	while (!stop) {
		double begin, took;

		poll(&p, 1, wait < 10 ? wait : 10);
		begin = now_ms(CLOCK_THREAD_CPUTIME_ID);
		listener_run(&listener);
		wait = buffers_tick(&buffers, ++copied);
		took = now_ms(CLOCK_THREAD_CPUTIME_ID) - begin;
		if (took > longest_round)
			longest_round = took;
	}
	return NULL;
}

static void start_server(pthread_t *thread)
{
	buffers = (struct buffers){
		.registry = &registry,
		.backend = { .reg = agree_reg, .unreg = agree_unreg },
		.answer = listener_answer,
		.answer_arg = &listener,
		.max_bytes = 4UL << 30,
	};
	listener = (struct listener){
		.socket = -1,
		.legacy = -1,
		.limits = { .max_clients = 4096,
			    .max_user_clients = 2048,
			    .max_buffers = 256,
			    .max_client_bytes = 2UL << 30,
			    .max_user_bytes = 2UL << 30,
			    .hello_timeout = 5 },
		.buffers = &buffers,
		.judge_proof = agree_proof,
	};
	if (!mkdtemp(dir) || chmod(dir, 0755) || listener_open(&listener, dir, NULL) ||
	    pthread_create(thread, NULL, serve, NULL))
		die("server");
	while (!serving)
		usleep(1000);
}

/* ---- a client ---- */

static int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/ublkb0.sock", dir);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("connect");
	return fd;
}

static struct wire_reply ask(int fd, enum wire_type type, int pass, uint64_t length,
			     uint32_t index)
{
	struct wire_request req;
	struct wire_reply reply = { 0 };
	char buf[sizeof(reply)];

	wire_request_init(&req, type, 1);
	req.length = length;
	req.index = index;
	if (wire_send(fd, &req, sizeof(req), pass) == 0 && recv(fd, buf, sizeof(buf), 0) > 0)
		wire_reply_decode(buf, sizeof(buf), &reply);
	return reply;
}

static int greeted(void)
{
	int fd = dial();

	ask(fd, WIRE_HELLO, STDIN_FILENO, 0, 0);
	return fd;
}

static int sealed(size_t size, size_t step, size_t touched)
{
	int fd = memfd_create("attack", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char *at;

	if (ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		die("memfd");
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	for (size_t i = 0; i < touched; i += step)
		at[i] = 1;
	munmap(at, size);
	return fd;
}

/* ---- attacks: each goes on until it is killed, and counts what it did ---- */

static _Atomic unsigned long *done;

static void nothing(void)
{
	for (;; ++*done)
		usleep(10000);
}

static void scan_20000_mappings(void)
{
	int memory = sealed(2 * MIB, 4096, 2 * MIB);
	int fd = greeted();

	for (int i = 0; i < 20000; i++)
		mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, memory, i % 2 * (off_t)MIB);
	for (;; ++*done)
		ask(fd, WIRE_SCAN, -1, 0, 0);
}

static void memory_in_pieces(void)
{
	int memory = sealed(256 * MIB, 8192, 256 * MIB);
	int fd = greeted();

	for (;; ++*done)
		ask(fd, WIRE_REMOVE, -1, 0,
		    ask(fd, WIRE_ADD, memory, 256 * MIB, 0).index);
}

/* The server's are its last descriptor and mapping. */
static void much_memory_left_behind(void)
{
	for (;; ++*done) {
		int fd = greeted();
		int memory = sealed(512 * MIB, 4096, 512 * MIB);
		struct wire_request req;

		wire_request_init(&req, WIRE_ADD, 1);
		req.length = 512 * MIB;
		wire_send(fd, &req, sizeof(req), memory);
		close(memory);
		close(fd);
	}
}

static void much_memory_as_a_proof(void)
{
	for (;; ++*done) {
		int memory = sealed(256 * MIB, 4096, 256 * MIB);
		struct wire_request req;
		int fd = dial();

		wire_request_init(&req, WIRE_HELLO, 1);
		wire_send(fd, &req, sizeof(req), memory);
		close(memory);
		close(fd);
	}
}

static void sparse_files(void)
{
	int fd = greeted();

	for (;; ++*done) {
		int memory = sealed(1UL << 30, MIB, 4 * MIB);

		if (ask(fd, WIRE_ADD, memory, 1UL << 30, 0).status) {
			close(fd);
			fd = greeted();
		}
		close(memory);
	}
}

static void connections(void)
{
	for (;; ++*done) {
		int fds[64];

		for (int i = 0; i < 64; i++)
			fds[i] = dial();
		for (int i = 0; i < 64; i++)
			close(fds[i]);
	}
}

static const struct attack {
	const char *what;
	void (*run)(void);
} attacks[] = {
	{ "nothing", nothing },
	{ "SCAN of 20 000 mappings", scan_20000_mappings },
	{ "ADD of 32 768 pieces", memory_in_pieces },
	{ "512 MiB left behind", much_memory_left_behind },
	{ "256 MiB sent as proof", much_memory_as_a_proof },
	{ "sparse memfds", sparse_files },
	{ "connections", connections },
};

/* ---- measuring ---- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

struct waits {
	double of[PINGS_MAX];
};

static void print_waits(struct waits *w, unsigned int nr)
{
	qsort(w->of, nr, sizeof(w->of[0]), by_size);
	printf(" %.2f | %.2f | %.1f |", w->of[nr / 2], w->of[nr * 99 / 100], w->of[nr - 1]);
}

/* How long one answer takes, and without what only a processor was waited for. */
static void ping(int fd, double *ret_all, double *ret_ours)
{
	double begin = now_ms(CLOCK_MONOTONIC);
	double queued = queued_ms(control_schedstat) + queued_ms(client_schedstat);

	if (ask(fd, WIRE_PING, -1, 0, 0).type != WIRE_PING)
		die("an answer");
	*ret_all = now_ms(CLOCK_MONOTONIC) - begin;
	*ret_ours = *ret_all + queued - queued_ms(control_schedstat) - queued_ms(client_schedstat);
	if (*ret_ours < 0)
		*ret_ours = 0;
}

static void measure(const struct attack *attack, int seconds)
{
	static struct waits all, ours;
	unsigned int nr = 0;
	int fd = greeted();
	double end;
	pid_t pid;

	*done = 0;
	longest_round = 0;
	pid = fork();
	if (pid == 0) {
		attack->run();
		_exit(0);
	}
	for (int i = 0; i < 1000 && !*done; i++)
		usleep(10000);
	for (end = now_ms(CLOCK_MONOTONIC) + seconds * 1e3;
	     now_ms(CLOCK_MONOTONIC) < end && nr < PINGS_MAX; usleep(2000), nr++)
		ping(fd, &all.of[nr], &ours.of[nr]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(fd);
	printf("| %s | %lu |", attack->what, *done);
	print_waits(&all, nr);
	print_waits(&ours, nr);
	printf(" %.2f |\n", longest_round);
	fflush(stdout);
	if (!*done)
		die("the attack");
}

int main(int argc, char **argv)
{
	int seconds = argc > 1 ? atoi(argv[1]) : 1;
	pthread_t thread;
	char path[64];

	signal(SIGPIPE, SIG_IGN);
	log_set_fd(open("/dev/null", O_WRONLY));
	done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	start_server(&thread);
	client_schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	printf("| attack | times | median | 99 %% | slowest | without waits for a processor: median "
	       "| 99 %% | slowest | longest round |\n");
	printf("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
	for (unsigned int i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++)
		measure(&attacks[i], seconds);
	stop = true;
	pthread_join(thread, NULL);
	listener_close(&listener);
	snprintf(path, sizeof(path), "%s/ublkb0.sock", dir);
	unlink(path);
	rmdir(dir);
	return 0;
}
