/* SPDX-License-Identifier: MIT */
/* abi_server.c - see abi_server.h. */
#include "abi_server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/blkzoned.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noreturn)) static void die(const char *what, int err)
{
	fprintf(stderr, "abi_server: %s: %s\n", what, strerror(err < 0 ? -err : err));
	abort();
}

/* Of an unprivileged device the path goes first, and what the command itself has behind it. */
struct with_path {
	char path[24];
	char payload[sizeof(struct ublksrv_ctrl_dev_info)];
};

static void put_path_first(struct uapi_ctrl_cmd *cmd, struct with_path *w)
{
	memset(w, 0, sizeof(*w));
	snprintf(w->path, sizeof(w->path), "/dev/ublkc%u", cmd->dev_id);
	if (cmd->len > sizeof(w->payload))
		die("payload", E2BIG);
	if (cmd->len)
		memcpy(w->payload, (const void *)(uintptr_t)cmd->addr, cmd->len);
	cmd->addr = (uintptr_t)w;
	cmd->dev_path_len = sizeof(w->path);
	cmd->len += sizeof(w->path);
}

int abi_command(struct abi_server *s, unsigned int cmd_op, unsigned int device, uint64_t addr,
		uint16_t len, uint64_t data)
{
	struct uapi_ctrl_cmd cmd = {
		.dev_id = device,
		.queue_id = UINT16_MAX,
		.addr = addr,
		.len = len,
		.data = { data },
	};
	struct with_path with_path;
	struct io_uring ring;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	int res;

	if (s->unprivileged && cmd_op != UBLK_U_CMD_ADD_DEV)
		put_path_first(&cmd, &with_path);
	/* A ring of its own, so that any thread may command at any time. */
	if (io_uring_queue_init(2, &ring, IORING_SETUP_SQE128))
		die("ring", errno);
	sqe = io_uring_get_sqe(&ring);
	if (!sqe)
		die("no entry", ENOBUFS);
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = s->ctrl.fd;
	sqe->off = cmd_op;
	memcpy(&sqe->addr3, &cmd, sizeof(cmd));
	io_uring_submit(&ring);
	while ((res = io_uring_wait_cqe(&ring, &cqe)) == -EINTR)
		;
	if (res)
		die("wait", res);
	res = cqe->res;
	io_uring_queue_exit(&ring);
	if (cmd.dev_path_len && len) /* what the driver answered */
		memcpy((void *)(uintptr_t)addr, with_path.payload, len);
	return res;
}

int abi_reg(struct abi_server *s, void *addr, uint64_t len, uint32_t flags)
{
	struct uapi_shmem_buf_reg reg = { .addr = (uintptr_t)addr, .len = len, .flags = flags };

	return abi_command(s, UBLK_U_CMD_REG_BUF, s->device, (uintptr_t)&reg, sizeof(reg), 0);
}

int abi_unreg(struct abi_server *s, uint64_t index)
{
	return abi_command(s, UBLK_U_CMD_UNREG_BUF, s->device, 0, 0, index);
}

static void open_char(struct abi_server *s)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkc%u", s->device);
	for (int i = 0; i < 100 && s->char_fd < 0; i++) {
		s->char_fd = open(path, O_RDWR | O_CLOEXEC);
		if (s->char_fd < 0)
			usleep(10000);
	}
	if (s->char_fd < 0)
		die(path, errno);
}

static void make_zoned(struct uapi_params *params)
{
	params->types |= UAPI_PARAM_TYPE_ZONED;
	params->basic.chunk_sectors = ABI_ZONE_BYTES >> 9;
	params->zoned.max_zone_append_sectors = ABI_IO_BYTES >> 9;
}

int abi_add(struct abi_server *s, uint64_t flags)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = 1,
		.queue_depth = ABI_DEPTH,
		.max_io_buf_bytes = ABI_IO_BYTES,
		.dev_id = UINT32_MAX,
		.flags = flags,
	};
	struct uapi_params params = {
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = {
			.logical_bs_shift = 9,
			.physical_bs_shift = 12,
			.io_opt_shift = 12,
			.io_min_shift = 9,
			.max_sectors = ABI_IO_BYTES >> 9,
			.dev_sectors = ABI_DEVICE_BYTES >> 9,
		},
	};
	uint64_t features;
	int ret;

	memset(s, 0, sizeof(*s));
	s->char_fd = s->disk_fd = -1;
	if (flags & UBLK_F_ZONED)
		make_zoned(&params);
	ret = ctrl_open(&s->ctrl);
	if (ret)
		die("control device", ret);
	/* Linux 7 looks for partitions while others already work: its reads would be held up
	 * with a server that a test kills, and everybody who closes the disk with them. */
	if (!ctrl_get_features(&s->ctrl, &features))
		info.flags |= features & UBLK_F_NO_AUTO_PART_SCAN;
	ret = ctrl_add_dev(&s->ctrl, &info);
	if (ret < 0) {
		ctrl_close(&s->ctrl);
		return ret;
	}
	s->device = info.dev_id;
	s->flags = info.flags & ~UBLK_F_NO_AUTO_PART_SCAN;
	if (s->flags & UAPI_F_SHMEM_SEGS) {
		s->lists = calloc((size_t)ABI_DEPTH * UAPI_SHMEM_SEGS_MAX, sizeof(*s->lists));
		if (!s->lists)
			die("lists", ENOMEM);
	}
	ret = ctrl_set_params(&s->ctrl, s->device, &params);
	if (ret < 0)
		die("parameters", ret);
	open_char(s);
	if (!(s->flags & UBLK_F_USER_COPY)) {
		s->buffers = aligned_alloc(4096, (size_t)ABI_DEPTH * ABI_IO_BYTES);
		if (!s->buffers)
			die("buffers", ENOMEM);
	}
	return 0;
}

static struct uapi_shmem_seg *list_of(struct abi_server *s, uint16_t tag)
{
	return s->lists && !s->no_lists ? s->lists + (size_t)tag * UAPI_SHMEM_SEGS_MAX : NULL;
}

static uint8_t *buffer_of(const struct abi_server *s, uint16_t tag)
{
	return s->buffers ? s->buffers + (size_t)tag * ABI_IO_BYTES : NULL;
}

static void io_command(struct abi_server *s, struct io_uring *ring, unsigned int op, uint16_t tag,
		       int result)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct ublksrv_io_cmd *cmd;

	if (!sqe)
		die("no entry", ENOBUFS);
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->off = op;
	sqe->user_data = tag;
	cmd = (struct ublksrv_io_cmd *)&sqe->addr3;
	cmd->tag = tag;
	cmd->result = result;
	cmd->addr = s->buffers ? (uintptr_t)buffer_of(s, tag) : (uintptr_t)list_of(s, tag);
}

static off_t data_of(uint16_t tag)
{
	return UBLKSRV_IO_BUF_OFFSET + ((off_t)tag << UBLK_TAG_OFF);
}

void abi_give(struct abi_server *s, uint16_t tag, const void *data, uint32_t bytes)
{
	if (s->buffers)
		memcpy(buffer_of(s, tag), data, bytes);
	else if (pwrite(s->char_fd, data, bytes, data_of(tag)) != (ssize_t)bytes)
		die("user copy", errno);
}

void abi_take(struct abi_server *s, uint16_t tag, void *data, uint32_t bytes)
{
	if (s->buffers)
		memcpy(data, buffer_of(s, tag), bytes);
	else if (pread(s->char_fd, data, bytes, data_of(tag)) != (ssize_t)bytes)
		die("user copy", errno);
}

static void fill_read(struct abi_server *s, uint16_t tag, uint32_t bytes)
{
	void *fill = malloc(bytes);

	memset(fill, ABI_FILL, bytes);
	abi_give(s, tag, fill, bytes);
	free(fill);
}

/* All zones are empty; how many bytes were told. */
static int report_zones(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	struct blk_zone zones[ABI_DEVICE_BYTES / ABI_ZONE_BYTES] = { 0 };
	uint64_t first = (iod->start_sector << 9) / ABI_ZONE_BYTES;
	uint32_t nr = iod->nr_sectors; /* of zones */

	for (uint64_t i = 0; i < nr; i++) {
		zones[i].start = ((first + i) * ABI_ZONE_BYTES) >> 9;
		zones[i].len = zones[i].capacity = ABI_ZONE_BYTES >> 9;
		zones[i].wp = zones[i].start;
		zones[i].type = BLK_ZONE_TYPE_SEQWRITE_REQ;
		zones[i].cond = BLK_ZONE_COND_EMPTY;
	}
	abi_give(s, tag, zones, nr * sizeof(zones[0]));
	return (int)(nr * sizeof(zones[0]));
}

static void check_match(struct abi_server *s, uint64_t addr, uint32_t bytes)
{
	uint64_t most = (uint64_t)s->pages_per_buffer * 4096;

	if (addr >> 48 || (most && (uint64_t)uapi_shmem_offset(addr) + bytes > most))
		s->bad_index++;
}

static bool is_tests_own(const struct ublksrv_io_desc *iod)
{
	uint64_t offset = iod->start_sector << 9;

	return offset >= ABI_TEST_OFFSET && offset < ABI_TEST_OFFSET + ABI_TEST_BYTES;
}

/* What the request's completion is to say. */
static int handle(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	uint32_t bytes = iod->nr_sectors << 9;
	uint8_t op = ublksrv_get_op(iod);

	if (op == UAPI_IO_OP_REPORT_ZONES)
		return report_zones(s, iod, tag);
	if (op != UBLK_IO_OP_READ && op != UBLK_IO_OP_WRITE)
		return 0;
	if (!is_tests_own(iod)) {
		if (op == UBLK_IO_OP_READ &&
		    !(iod->op_flags & (UAPI_IO_F_SHMEM_ZC | UAPI_IO_F_SHMEM_SEGS)))
			fill_read(s, tag, bytes);
		return (int)bytes;
	}
	if (s->handler)
		return s->handler(s, iod, tag);
	s->last_op_flags = iod->op_flags;
	s->last_addr = iod->addr;
	s->last_bytes = bytes;
	if (iod->op_flags & UAPI_IO_F_SHMEM_ZC) {
		s->nr_matched++;
		check_match(s, iod->addr, bytes);
		if (s->halve && bytes >= 8192)
			return (int)(bytes / 2);
	} else if (iod->op_flags & UAPI_IO_F_SHMEM_SEGS) {
		memcpy(s->last_list, &s->lists[(size_t)tag * UAPI_SHMEM_SEGS_MAX],
		       iod->addr * sizeof(*s->last_list));
		s->nr_listed++;
		if (s->halve && bytes >= 8192)
			return (int)(bytes / 2);
	} else {
		s->nr_copied++;
		if (op == UBLK_IO_OP_READ)
			fill_read(s, tag, bytes);
	}
	return (int)bytes;
}

/* @nr_kept: how many are already. */
static bool is_kept(const struct abi_server *s, const struct ublksrv_io_desc *iod,
		    unsigned int nr_kept)
{
	if (!is_tests_own(iod))
		return false;
	return s->hold || ((iod->start_sector << 9) >= ABI_SLOW_OFFSET && nr_kept < s->hold_slow);
}

static void serve_held(struct abi_server *s, struct io_uring *ring,
		       const struct ublksrv_io_desc *descriptors, bool *held)
{
	unsigned int nr_kept = 0;

	for (uint16_t tag = 0; tag < ABI_DEPTH; tag++) {
		if (!held[tag])
			continue;
		if (is_kept(s, &descriptors[tag], nr_kept)) {
			nr_kept++;
			continue;
		}
		held[tag] = false;
		io_command(s, ring, UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag,
			   handle(s, &descriptors[tag], tag));
	}
	s->nr_held = nr_kept;
}

static void *serve(void *arg)
{
	struct abi_server *s = arg;
	struct io_uring ring;
	const struct ublksrv_io_desc *descriptors;
	struct __kernel_timespec tick = { .tv_nsec = 1000000 };
	bool held[ABI_DEPTH] = { false };
	unsigned int nr_live = ABI_DEPTH;

	descriptors = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE, s->char_fd,
			   UBLKSRV_CMD_BUF_OFFSET);
	if (descriptors == MAP_FAILED || io_uring_queue_init(64, &ring, 0) ||
	    io_uring_register_files(&ring, &s->char_fd, 1))
		die("queue", errno);
	for (uint16_t tag = 0; tag < ABI_DEPTH; tag++)
		io_command(s, &ring, UBLK_U_IO_FETCH_REQ, tag, 0);
	io_uring_submit(&ring);
	s->ready = true;
	while (nr_live) {
		struct io_uring_cqe *cqe;
		unsigned int head;
		unsigned int nr = 0;

		io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &tick, NULL);
		io_uring_for_each_cqe(&ring, head, cqe)
		{
			if (cqe->res == UBLK_IO_RES_ABORT)
				nr_live--;
			else
				held[cqe->user_data] = true;
			nr++;
		}
		io_uring_cq_advance(&ring, nr);
		serve_held(s, &ring, descriptors, held);
	}
	munmap((void *)descriptors, 4096);
	io_uring_queue_exit(&ring);
	return NULL;
}

static void start_disk(struct abi_server *s)
{
	char path[64];
	int ret;

	while (!s->ready)
		usleep(1000);
	ret = ctrl_start_dev(&s->ctrl, s->device, s->child ? s->child : getpid());
	if (ret < 0)
		die("start", ret);
	s->started = true;
	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/nomerges", s->device);
	ret = open(path, O_WRONLY);
	if (ret < 0 || write(ret, "2", 1) != 1)
		die(path, errno);
	close(ret);
	snprintf(path, sizeof(path), "/dev/ublkb%u", s->device);
	s->disk_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (s->disk_fd < 0)
		die(path, errno);
}

void abi_start_with(struct abi_server *s, void *(*with)(void *))
{
	if (pthread_create(&s->thread, NULL, with, s))
		die("thread", errno);
	start_disk(s);
}

void abi_start(struct abi_server *s)
{
	abi_start_with(s, serve);
}

/* Only the child may have the character device open: that it is closed tells the driver. */
static void fork_server(struct abi_server *s)
{
	pid_t pid;

	if (s->char_fd >= 0)
		close(s->char_fd);
	s->char_fd = -1;
	s->ready = false;
	pid = fork();
	if (pid < 0)
		die("fork", errno);
	if (pid == 0) {
		open_char(s);
		serve(s);
		_exit(0);
	}
	s->child = pid; /* by the parent alone: the memory is shared */
}

void abi_start_process(struct abi_server *s)
{
	fork_server(s);
	start_disk(s);
}

void abi_kill_process(struct abi_server *s)
{
	kill(s->child, SIGKILL);
	waitpid(s->child, NULL, 0);
	s->char_fd = -1;
	s->nr_held = 0;
}

void abi_begin_recovery(struct abi_server *s)
{
	int ret;

	do {
		usleep(10000);
		ret = ctrl_start_recovery(&s->ctrl, s->device);
	} while (ret == -EBUSY);
	if (ret < 0)
		die("start of recovery", ret);
}

void abi_end_recovery(struct abi_server *s)
{
	int ret;

	fork_server(s);
	ret = ctrl_end_recovery(&s->ctrl, s->device, s->child);
	if (ret < 0)
		die("end of recovery", ret);
}

void abi_del(struct abi_server *s)
{
	if (s->disk_fd >= 0)
		close(s->disk_fd);
	if (s->started) {
		ctrl_stop_dev(&s->ctrl, s->device);
		if (s->child)
			waitpid(s->child, NULL, 0);
		else
			pthread_join(s->thread, NULL);
	}
	if (!s->child)
		close(s->char_fd);
	ctrl_del_dev(&s->ctrl, s->device);
	ctrl_close(&s->ctrl);
	free(s->lists);
	free(s->buffers);
}
