/* SPDX-License-Identifier: MIT */
/*
 * server.c - the server of a device under the fuzzer: one process, one thread, all queues.
 *
 * Its disk is in memory that the sequence sees as well.  What it is told of a request is kept, by
 * the request's place on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "world.h"

struct place {
	const struct ublksrv_io_desc *iod;
	uint8_t *buffer; /* without USER_COPY */
	bool held;
};

static struct place places[MAX_QUEUES * MAX_DEPTH];
static struct uapi_shmem_seg lists[MAX_QUEUES * MAX_DEPTH][UAPI_SHMEM_SEGS_MAX];
static struct io_uring ring;
static int char_fd;

static void open_char(const struct device *d)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkc%u", d->number);
	/* its predecessor's io_uring may be on its way out */
	for (int i = 0; i < 30000; i++) {
		char_fd = open(path, O_RDWR | O_CLOEXEC);
		if (char_fd >= 0)
			return;
		usleep(1000);
	}
	wrong("%s: %s", path, strerror(errno));
}

static void map_queues(const struct device *d)
{
	size_t stride = UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc);

	for (unsigned int q = 0; q < d->nr_queues; q++) {
		const struct ublksrv_io_desc *iods =
			mmap(NULL, PAGE, PROT_READ, MAP_SHARED, char_fd, (off_t)(q * stride));

		if (iods == MAP_FAILED)
			wrong("mmap of queue %u: %s", q, strerror(errno));
		for (unsigned int tag = 0; tag < d->depth; tag++)
			places[q * d->depth + tag].iod = iods + tag;
	}
}

static void command_at(const struct device *d, unsigned int op, unsigned int place, int result)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	struct ublksrv_io_cmd *cmd;

	if (!sqe)
		wrong("server: no entry");
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, 0, NULL, 0, op);
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->user_data = place;
	cmd = (struct ublksrv_io_cmd *)&sqe->addr3;
	cmd->q_id = (uint16_t)(place / d->depth);
	cmd->tag = (uint16_t)(place % d->depth);
	cmd->result = result;
	if (places[place].buffer)
		cmd->addr = (uintptr_t)places[place].buffer;
	else
		cmd->addr = d->flags & UAPI_F_SHMEM_SEGS ? (uintptr_t)lists[place] : 0;
}

/* ---- data ---- */

/* Private memory is where the char device is mapped, by index. */
static uint8_t *page_of(const struct device *d, unsigned int index, unsigned int page)
{
	static uint8_t *maps[NR_BUFFERS];
	const struct buffer *b = &d->buffers[index];

	if (!is_foreign(b))
		return world->views[IN_ORDER] + b->pages[page] * PAGE;
	if (!maps[index])
		maps[index] = mmap(NULL, OWNER_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
				   char_fd, (off_t)(UAPI_FOREIGN_OFFSET + ((uint64_t)index << 32)));
	if (maps[index] == MAP_FAILED)
		wrong("mmap of buffer %u: %s", index, strerror(errno));
	return maps[index] + page * PAGE;
}

/* Between the disk at @at and @bytes of a buffer. */
static void in_place(struct device *d, unsigned int index, uint64_t offset, uint64_t bytes,
		     uint64_t at, bool is_read)
{
	const struct buffer *b = &d->buffers[index % NR_BUFFERS];

	if (d->may_be_unknown)
		return;
	if (index >= NR_BUFFERS || !b->used || offset > b->nr * PAGE ||
	    bytes > b->nr * PAGE - offset)
		wrong("the server was told of buffer %u, offset %llu, %llu bytes", index,
		      (unsigned long long)offset, (unsigned long long)bytes);
	while (bytes) {
		uint8_t *page = page_of(d, index, (unsigned int)(offset / PAGE));
		uint64_t n = PAGE - offset % PAGE;

		n = n < bytes ? n : bytes;
		if (is_read)
			memcpy(page + offset % PAGE, d->disk + at, n);
		else
			memcpy(d->disk + at, page + offset % PAGE, n);
		offset += n;
		at += n;
		bytes -= n;
	}
}

static void listed(struct device *d, const struct ublksrv_io_desc *iod, unsigned int place,
		   bool is_read)
{
	uint64_t at = iod->start_sector << 9, end = at + ((uint64_t)iod->nr_sectors << 9);

	if (iod->addr > UAPI_SHMEM_SEGS_MAX)
		wrong("a list of %llu", (unsigned long long)iod->addr);
	for (unsigned int i = 0; i < iod->addr; i++) {
		const struct uapi_shmem_seg *seg = &lists[place][i];

		if (seg->len > end - at)
			wrong("a list of more bytes than the request has");
		in_place(d, seg->index, seg->offset, seg->len, at, is_read);
		at += seg->len;
	}
	if (at != end)
		wrong("a list of fewer bytes than the request has");
}

static void copied(struct device *d, const struct ublksrv_io_desc *iod, unsigned int place,
		   bool is_read)
{
	uint64_t at = iod->start_sector << 9, bytes = (uint64_t)iod->nr_sectors << 9;
	off_t offset = UBLKSRV_IO_BUF_OFFSET + ((off_t)(place / d->depth) << UBLK_QID_OFF) +
		       ((off_t)(place % d->depth) << UBLK_TAG_OFF);
	ssize_t n = (ssize_t)bytes;

	if (d->flags & UBLK_F_USER_COPY)
		n = is_read ? pwrite(char_fd, d->disk + at, bytes, offset)
			    : pread(char_fd, d->disk + at, bytes, offset);
	else if (is_read)
		memcpy(places[place].buffer, d->disk + at, bytes);
	else
		memcpy(d->disk + at, places[place].buffer, bytes);
	if (n != (ssize_t)bytes)
		wrong("copy of %llu bytes: %zd", (unsigned long long)bytes, n);
}

static void remember(struct device *d, const struct ublksrv_io_desc *iod, unsigned int place)
{
	uint64_t at = iod->start_sector << 9;
	struct handed *h = &d->handed[at / IO_BYTES];

	h->op_flags = iod->op_flags;
	h->addr = iod->addr;
	h->bytes = iod->nr_sectors << 9;
	h->at = at;
	if (iod->op_flags & UAPI_IO_F_SHMEM_SEGS)
		memcpy(h->list, lists[place], sizeof(h->list));
	h->times++;
}

static int handle(struct device *d, const struct ublksrv_io_desc *iod, unsigned int place)
{
	uint64_t at = iod->start_sector << 9, bytes = (uint64_t)iod->nr_sectors << 9;
	uint8_t op = ublksrv_get_op(iod);

	if (op != UBLK_IO_OP_READ && op != UBLK_IO_OP_WRITE)
		return 0;
	if (at > DISK_BYTES || bytes > DISK_BYTES - at || bytes > IO_BYTES)
		wrong("a request of %llu bytes at %llu", (unsigned long long)bytes,
		      (unsigned long long)at);
	remember(d, iod, place);
	if (iod->op_flags & UAPI_IO_F_SHMEM_ZC) {
		if (iod->addr >> 48)
			wrong("address %llx", (unsigned long long)iod->addr);
		in_place(d, uapi_shmem_index(iod->addr), uapi_shmem_offset(iod->addr), bytes, at,
			 op == UBLK_IO_OP_READ);
	} else if (iod->op_flags & UAPI_IO_F_SHMEM_SEGS) {
		listed(d, iod, place, op == UBLK_IO_OP_READ);
	} else {
		copied(d, iod, place, op == UBLK_IO_OP_READ);
	}
	return (int)bytes;
}

/* ---- the loop ---- */

static bool is_kept(const struct device *d, const struct ublksrv_io_desc *iod)
{
	uint8_t op = ublksrv_get_op(iod);

	return d->hold && (op == UBLK_IO_OP_READ || op == UBLK_IO_OP_WRITE) &&
	       (iod->start_sector << 9) / IO_BYTES == HELD_SLOT;
}

static void serve_held(struct device *d)
{
	unsigned int nr_kept = 0;

	for (unsigned int i = 0; i < d->nr_queues * d->depth; i++) {
		if (!places[i].held)
			continue;
		if (is_kept(d, places[i].iod)) {
			nr_kept++;
			continue;
		}
		places[i].held = false;
		command_at(d, UBLK_U_IO_COMMIT_AND_FETCH_REQ, i, handle(d, places[i].iod, i));
	}
	d->nr_held = nr_kept;
}

static void set_up(struct device *d)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(places, 0, sizeof(places));
	for (unsigned int i = 0; i < NR_DEVICES; i++) /* they are its parent's */
		if (world->devices[i].disk_fd >= 0)
			close(world->devices[i].disk_fd);
	open_char(d);
	if (io_uring_queue_init(2 * MAX_QUEUES * MAX_DEPTH, &ring, 0) ||
	    io_uring_register_files(&ring, &char_fd, 1))
		wrong("server: ring: %s", strerror(errno));
	map_queues(d);
	for (unsigned int i = 0; i < d->nr_queues * d->depth; i++)
		if (!(d->flags & UBLK_F_USER_COPY))
			places[i].buffer = aligned_alloc(PAGE, IO_BYTES);
}

void serve(struct device *d)
{
	struct __kernel_timespec tick = { .tv_nsec = 1000000 };
	unsigned int nr_live = d->nr_fetch;

	set_up(d);
	for (unsigned int i = 0; i < d->nr_fetch; i++)
		command_at(d, UBLK_U_IO_FETCH_REQ, i, 0);
	io_uring_submit(&ring);
	d->serving = true;
	while (nr_live || !d->nr_fetch) {
		struct io_uring_cqe *cqe;
		unsigned int head, nr = 0;

		io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &tick, NULL);
		io_uring_for_each_cqe(&ring, head, cqe)
		{
			nr++;
			if (cqe->res == UBLK_IO_RES_ABORT)
				nr_live--;
			else if (cqe->res == UBLK_IO_RES_NEED_GET_DATA)
				command_at(d, UBLK_U_IO_NEED_GET_DATA, (unsigned int)cqe->user_data,
					   0);
			else if (cqe->res == UBLK_IO_RES_OK)
				places[cqe->user_data].held = true;
			else
				wrong("server: result %d", cqe->res);
		}
		io_uring_cq_advance(&ring, nr);
		serve_held(d);
	}
	_exit(0);
}
