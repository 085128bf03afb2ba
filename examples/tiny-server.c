/* SPDX-License-Identifier: MIT */
/*
 * tiny-server.c - a ublk server that was there already, with libublkzc-server beside it.
 *
 *     tiny-server [--recover] FILE N      serves FILE as /dev/ublkbN until SIGTERM
 *
 * One queue, one thread, bare liburing and a loop of its own. What it does for the library is
 * marked with "ublkzc:". Programs under libublkzc.so are served in place, all others are copied
 * as before. When it dies, I/O waits for "tiny-server --recover".
 *
 *     cc -D_GNU_SOURCE -o tiny-server tiny-server.c ublk_device.c \
 *         $(pkg-config --cflags --libs ublkzc-server liburing)
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ublkzc/server.h>

#include "ublk_device.h"

/* user_data: a tag, whose storage has finished; FROM_DRIVER + tag, a request; or: */
enum { FROM_DRIVER = 1 << 16, CLIENTS = 2 << 16, SIGNALS, STARTED };

static struct io_uring ring;
static struct ublk_device device;
static struct ublkzc_server *clients;
static int file;
static struct request {
	char *data; /* the client's memory, or the copy; NULL: there is none */
	char *copy;
	unsigned int len, done;
} requests[DEPTH];
static unsigned long long zero_copy, copied; /* requests */
static bool stopping;

static struct io_uring_sqe *entry(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe)
		errx(1, "the ring is full");
	return sqe;
}

static void fetch(unsigned int tag, bool commit, int result)
{
	struct io_uring_sqe *sqe = entry();

	device_prepare(&device, sqe, tag, commit, result);
	sqe->user_data = FROM_DRIVER + tag;
}

static void watch(int fd, unsigned int what)
{
	struct io_uring_sqe *sqe = entry();

	io_uring_prep_poll_add(sqe, fd, POLLIN);
	sqe->user_data = what;
}

/* Between the request's own pages and our copy; the driver lets matched ones be copied, too. */
static int move_copy(unsigned int tag, bool out)
{
	const struct request *rq = &requests[tag];
	off_t pos = (off_t)(0x80000000ULL + ((unsigned long long)tag << 25));
	ssize_t n = 1;

	for (unsigned int at = 0; at < rq->len && n > 0; at += (unsigned int)n)
		n = out ? pwrite(device.fd, rq->copy + at, rq->len - at, pos + at)
			: pread(device.fd, rq->copy + at, rq->len - at, pos + at);
	return n > 0 ? 0 : n < 0 ? -errno : -EIO;
}

/* The storage's part: what is left of it. */
static void go_on(unsigned int tag)
{
	const struct ublksrv_io_desc *iod = &device.descs[tag];
	const struct request *rq = &requests[tag];
	unsigned long long at = (iod->start_sector << 9) + rq->done;
	struct io_uring_sqe *sqe = entry();

	if (!rq->data)
		io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
	else if (ublksrv_get_op(iod) == UBLK_IO_OP_READ)
		io_uring_prep_read(sqe, file, rq->data + rq->done, rq->len - rq->done, at);
	else
		io_uring_prep_write(sqe, file, rq->data + rq->done, rq->len - rq->done, at);
	sqe->user_data = tag;
}

static void begin_copied(unsigned int tag)
{
	struct request *rq = &requests[tag];
	int ret = 0;

	ublkzc_server_copied(clients); /* ublkzc: perhaps there is more to register */
	rq->data = rq->copy;
	rq->done = 0;
	if (ublksrv_get_op(&device.descs[tag]) == UBLK_IO_OP_WRITE)
		ret = move_copy(tag, false);
	if (ret)
		fetch(tag, true, ret);
	else
		go_on(tag);
}

static void begin(unsigned int tag)
{
	const struct ublksrv_io_desc *iod = &device.descs[tag];
	unsigned int op = ublksrv_get_op(iod);
	struct request *rq = &requests[tag];

	*rq = (struct request){ .copy = rq->copy };
	if (op == UBLK_IO_OP_FLUSH) {
		go_on(tag);
		return;
	}
	if (op != UBLK_IO_OP_READ && op != UBLK_IO_OP_WRITE) {
		fetch(tag, true, -EOPNOTSUPP);
		return;
	}
	rq->len = iod->nr_sectors << 9;
	/* ublkzc: where its data is. */
	if (iod->op_flags & UBLKZC_SERVER_IO_MATCHED)
		rq->data = ublkzc_server_find(clients, iod->addr, rq->len,
					      op == UBLK_IO_OP_READ ? UBLKZC_SERVER_INTO
								    : UBLKZC_SERVER_FROM);
	if (rq->data)
		go_on(tag);
	else
		begin_copied(tag);
}

static void storage_done(unsigned int tag, int res)
{
	struct request *rq = &requests[tag];
	bool in_place = rq->data != rq->copy;

	if (res > 0)
		rq->done += (unsigned int)res;
	if (res == -EINTR || res == -EAGAIN || (res > 0 && rq->done < rq->len)) {
		go_on(tag); /* never short: the driver takes that for all of it */
		return;
	}
	if (rq->data && in_place && res == -EFAULT) {
		begin_copied(tag); /* ublkzc: its owner has taken those pages away */
		return;
	}
	if (rq->data && !res)
		res = -EIO; /* the file has shrunk */
	if (res > 0 && !in_place && ublksrv_get_op(&device.descs[tag]) == UBLK_IO_OP_READ)
		res = move_copy(tag, true);
	if (rq->data)
		(*(in_place ? &zero_copy : &copied))++;
	fetch(tag, true, res < 0 ? res : (int)rq->len);
}

/* ublkzc: the storage's system calls are all that touches clients' memory here. */
static void open_clients(void)
{
	struct ublkzc_server_options options = {
		.size = sizeof(options),
		.device = device.number,
		.flags = UBLKZC_SERVER_ONLY_SYSTEM_CALLS |
			 (device.recovering ? UBLKZC_SERVER_TAKES_OVER : 0),
	};
	int ret;

	ublkzc_server_log(2, 1);
	ret = ublkzc_server_open(&options, &clients);
	if (ret)
		errx(1, "libublkzc-server: %s", strerror(-ret));
}

/* SIGUSR1, or SIGTERM: say what was done so far. */
static void heard(int signals)
{
	struct ublkzc_server_stats stats;
	struct signalfd_siginfo info;

	if (read(signals, &info, sizeof(info)) != sizeof(info))
		err(1, "signalfd");
	ublkzc_server_stats(clients, &stats, sizeof(stats));
	printf("zero_copy=%llu copied=%llu clients=%d buffers=%d\n", zero_copy, copied,
	       (int)stats.clients, (int)stats.buffers);
	if (info.ssi_signo == SIGTERM && !stopping) {
		ublkzc_server_stop(clients); /* ublkzc: before the device */
		device_begin_stop(&device);
		stopping = true;
	}
	watch(signals, SIGNALS);
}

static void handle(unsigned int what, int res, int signals)
{
	if (what < DEPTH) {
		storage_done(what, res);
	} else if (what < FROM_DRIVER + DEPTH) {
		begin(what - FROM_DRIVER);
	} else if (what == CLIENTS) {
		ublkzc_server_dispatch(clients); /* ublkzc: its turn */
		watch(ublkzc_server_fd(clients), CLIENTS);
	} else if (what == SIGNALS) {
		heard(signals);
	} else {
		device_end_start(&device);
		ublkzc_server_live(clients); /* ublkzc: after a recovery it has waited for that */
		printf("/dev/ublkb%u\n", device.number);
	}
}

/* Until the driver has taken all requests back. */
static void serve(int signals)
{
	unsigned int fetching = DEPTH;
	struct io_uring_cqe *cqe;

	watch(signals, SIGNALS);
	watch(ublkzc_server_fd(clients), CLIENTS);
	watch(device.commands.ring_fd, STARTED);
	while (fetching) {
		int res = io_uring_submit_and_wait(&ring, 1);

		if (res < 0 && res != -EINTR)
			errx(1, "io_uring: %s", strerror(-res));
		for (; fetching && io_uring_peek_cqe(&ring, &cqe) == 0; io_uring_submit(&ring)) {
			unsigned int what = (unsigned int)cqe->user_data;
			bool from_driver = what >= FROM_DRIVER && what < CLIENTS;

			res = cqe->res;
			io_uring_cqe_seen(&ring, cqe);
			if (from_driver && res == UBLK_IO_RES_ABORT)
				fetching--;
			else
				handle(what, res, signals);
		}
	}
}

int main(int argc, char **argv)
{
	bool recovering = argc == 4 && strcmp(argv[1], "--recover") == 0;
	sigset_t signals;
	struct stat st;

	if (argc != (recovering ? 4 : 3))
		errx(2, "usage: tiny-server [--recover] FILE N");
	setlinebuf(stdout);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	file = open(argv[argc - 2], O_RDWR | O_CLOEXEC);
	if (file < 0 || fstat(file, &st) < 0)
		err(1, "%s", argv[argc - 2]);
	if (io_uring_queue_init(4 * DEPTH, &ring, 0))
		errx(1, "io_uring");
	device_open(&device, (unsigned int)strtoul(argv[argc - 1], NULL, 10),
		    (unsigned long long)st.st_size, recovering);
	for (unsigned int tag = 0; tag < DEPTH; tag++) {
		requests[tag].copy = malloc(MAX_IO);
		if (!requests[tag].copy)
			err(1, "malloc");
		fetch(tag, false, 0);
	}
	open_clients();
	device_begin_start(&device);
	serve(signalfd(-1, &signals, SFD_CLOEXEC));
	if (!stopping)
		errx(1, "the driver has taken device %u back", device.number);
	ublkzc_server_close(clients);
	device_delete(&device);
	return 0;
}
