/* SPDX-License-Identifier: MIT */
/*
 * pinned.c - memory that the kernel holds on to while the program forks.
 *
 * For anonymous memory the kernel gives the child a copy of pages that are
 * pinned, so that what a device reads or writes stays the parent's.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hostile.h"

#define LEN (64UL << 10)

static void ring_with(struct io_uring *ring, void *buf, size_t len)
{
	struct iovec iov = { buf, len };
	int ret = io_uring_queue_init(8, ring, 0);

	if (ret == -ENOSYS || ret == -EPERM)
		skip("no io_uring here");
	CHECK(ret == 0);
	CHECK(io_uring_register_buffers(ring, &iov, 1) == 0);
}

static void finish(struct io_uring *ring, int expected)
{
	struct io_uring_cqe *cqe;
	int ret;

	/* The kernel may say that a wait was interrupted, as of other threads' forks. */
	while ((ret = io_uring_wait_cqe(ring, &cqe)) == -EINTR)
		;
	if (ret)
		fprintf(stderr, "io_uring_wait_cqe says %d\n", ret);
	CHECK(ret == 0);
	if (cqe->res != expected)
		fprintf(stderr, "a request says %d, not %d\n", cqe->res, expected);
	CHECK(cqe->res == expected);
	io_uring_cqe_seen(ring, cqe);
}

static void fixed(struct io_uring *ring, bool write, int fd, void *buf, size_t len)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (write)
		io_uring_prep_write_fixed(sqe, fd, buf, (unsigned int)len, 0, 0);
	else
		io_uring_prep_read_fixed(sqe, fd, buf, (unsigned int)len, 0, 0);
	CHECK(io_uring_submit(ring) == 1);
}

static void fork_once(void)
{
	pid_t pid = child();

	if (!pid)
		_exit(0);
	expect_well(pid);
}

static void write_fixed_of(unsigned char *buf)
{
	unsigned char *other = aligned(LEN, 0);
	struct io_uring ring;
	int fd = open_direct();

	memset(buf, 'a', LEN);
	ring_with(&ring, buf, LEN);
	fork_once();
	memset(buf, 'b', LEN);
	fixed(&ring, true, fd, buf, LEN);
	finish(&ring, LEN);
	CHECK(pread(fd, other, LEN, 0) == (ssize_t)LEN);
	CHECK(all_are(other, LEN, 'b'));
	io_uring_queue_exit(&ring);
}

static void read_fixed_of(unsigned char *buf)
{
	unsigned char *other = aligned(LEN, 'r');
	struct io_uring ring;
	int fd = open_direct();

	CHECK(pwrite(fd, other, LEN, 0) == (ssize_t)LEN);
	ring_with(&ring, buf, LEN);
	fork_once();
	memset(buf, 'o', LEN);
	fixed(&ring, false, fd, buf, LEN);
	finish(&ring, LEN);
	CHECK(all_are(buf, LEN, 'r'));
	io_uring_queue_exit(&ring);
}

static void uring_write_fixed(void)
{
	write_fixed_of(aligned(LEN, 0));
}

static void uring_read_fixed(void)
{
	read_fixed_of(aligned(LEN, 0));
}

static void uring_write_fixed_mapped(void)
{
	write_fixed_of(mapped(4UL << 20, 0));
}

static void uring_read_fixed_mapped(void)
{
	read_fixed_of(mapped(4UL << 20, 0));
}

static void uring_write_fixed_malloc(void)
{
	/* aligned by hand, as fio does */
	unsigned char *p = malloc(4UL << 20);

	CHECK(p);
	p += -(size_t)p % 4096;
	write_fixed_of(memset(p, 0, LEN));
}

/* More is live than any limit up to which children get copies. */
static void uring_write_fixed_much(void)
{
	unsigned char *much[3];

	for (int i = 0; i < 3; i++)
		much[i] = aligned(40UL << 20, (unsigned char)i);
	write_fixed_of(much[1]);
}

/* The read waits in the kernel, with the buffer pinned, until a pipe has data. */
static void uring_read_in_flight(void)
{
	unsigned char *buf = aligned(LEN, 'o');
	struct io_uring ring;
	unsigned char *data = malloc(4096);
	int fds[2];

	CHECK(data && pipe(fds) == 0);
	memset(data, 'n', 4096);
	ring_with(&ring, buf, LEN);
	fixed(&ring, false, fds[0], buf, 4096);
	fork_once();
	fork_once();
	CHECK(write(fds[1], data, 4096) == 4096);
	finish(&ring, 4096);
	CHECK(all_are(buf, 4096, 'n'));
	io_uring_queue_exit(&ring);
}

/* ---- direct I/O of one thread, forks of another ---- */

static atomic_bool done;

static void *forker(void *arg)
{
	unsigned long *forks = arg;

	while (!done) {
		pid_t pid = child();

		if (!pid)
			_exit(0);
		expect_well(pid);
		++*forks;
	}
	return NULL;
}

/* Every byte of every request is checked while the process is forked again and again. */
static void during_forks(void (*io)(int fd, unsigned char *buf, unsigned char value))
{
	unsigned char *out = aligned(LEN, 0);
	double end = seconds() + 2 * patience();
	unsigned long forks = 0;
	pthread_t thread;
	int fd = open_direct();

	CHECK(pthread_create(&thread, NULL, forker, &forks) == 0);
	for (unsigned int i = 0; (seconds() < end || forks < 5) && i < 1000000; i++)
		io(fd, out, (unsigned char)i);
	done = true;
	pthread_join(thread, NULL);
	CHECK(forks > 0);
}

static void plain_io(int fd, unsigned char *buf, unsigned char value)
{
	memset(buf, value, LEN);
	CHECK(pwrite(fd, buf, LEN, 0) == (ssize_t)LEN);
	memset(buf, ~value, LEN);
	CHECK(pread(fd, buf, LEN, 0) == (ssize_t)LEN);
	CHECK(all_are(buf, LEN, value));
}

static void direct_io_while_forking(void)
{
	during_forks(plain_io);
}

static void aio_one(aio_context_t ctx, int fd, int opcode, void *buf)
{
	struct iocb cb = { .aio_fildes = (unsigned int)fd,
			   .aio_lio_opcode = (unsigned short)opcode,
			   .aio_buf = (unsigned long)buf,
			   .aio_nbytes = LEN };
	struct iocb *list[] = { &cb };
	struct io_event event;

	CHECK(syscall(SYS_io_submit, ctx, 1, list) == 1);
	CHECK(syscall(SYS_io_getevents, ctx, 1, 1, &event, NULL) == 1);
	CHECK(event.res == (long)LEN);
}

static void aio_io(int fd, unsigned char *buf, unsigned char value)
{
	static aio_context_t ctx;

	if (!ctx && syscall(SYS_io_setup, 8, &ctx) != 0)
		skip("no aio here");
	memset(buf, value, LEN);
	aio_one(ctx, fd, IOCB_CMD_PWRITE, buf);
	memset(buf, ~value, LEN);
	aio_one(ctx, fd, IOCB_CMD_PREAD, buf);
	CHECK(all_are(buf, LEN, value));
}

static void aio_while_forking(void)
{
	during_forks(aio_io);
}

static void uring_io(int fd, unsigned char *buf, unsigned char value)
{
	static struct io_uring ring;
	static bool there;

	if (!there)
		ring_with(&ring, buf, LEN);
	there = true;
	memset(buf, value, LEN);
	fixed(&ring, true, fd, buf, LEN);
	finish(&ring, LEN);
	memset(buf, ~value, LEN);
	fixed(&ring, false, fd, buf, LEN);
	finish(&ring, LEN);
	CHECK(all_are(buf, LEN, value));
}

static void uring_while_forking(void)
{
	during_forks(uring_io);
}

const struct attack pinned_attacks[] = {
	{ "uring-write-fixed", uring_write_fixed, "a registered buffer is the parent's after fork" },
	{ "uring-read-fixed", uring_read_fixed, "and what is read into it arrives" },
	{ "uring-write-fixed-mapped", uring_write_fixed_mapped, "likewise, of a mapping" },
	{ "uring-read-fixed-mapped", uring_read_fixed_mapped, "likewise, of a mapping" },
	{ "uring-write-fixed-malloc", uring_write_fixed_malloc, "likewise, of malloc" },
	{ "uring-write-fixed-much", uring_write_fixed_much, "likewise, with 120 MiB live" },
	{ "uring-read-in-flight", uring_read_in_flight, "a read that waits in the kernel arrives" },
	{ "direct-io-while-forking", direct_io_while_forking, "no byte is lost to another's fork" },
	{ "aio-while-forking", aio_while_forking, "nor with aio" },
	{ "uring-while-forking", uring_while_forking, "nor with registered buffers" },
	{ 0 },
};
