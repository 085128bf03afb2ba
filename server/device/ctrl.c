/* SPDX-License-Identifier: MIT */
/*
 * ctrl.c - commands to /dev/ublk-control over a ring with 128-byte entries.
 *
 * A synchronous command may find asynchronous completions in front of its
 * own; those stay in a list until ctrl_collect() asks.
 */
#include "ctrl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

#define CTRL_DEPTH 64U
#define WAIT_AGAIN_MS 10
/* Never pointers. */
#define SYNC_COOKIE 1ULL
#define TAKEN_BACK_COOKIE 2ULL /* of a command that could not be submitted */

static const char control_path[] = "/dev/ublk-control";

int ctrl_open(struct ctrl *c)
{
	int ret;

	*c = CTRL_CLOSED;
	c->fd = open(control_path, O_RDWR | O_CLOEXEC);
	if (c->fd < 0) {
		ret = -errno;
		if (ret == -ENOENT)
			return log_error(
				ret,
				"%s: the module ublk_drv is not loaded (try: modprobe ublk_drv)",
				control_path);
		if (ret == -EACCES || ret == -EPERM)
			return log_error(ret, "%s: needs root (CAP_SYS_ADMIN)", control_path);
		return log_error(ret, "%s", control_path);
	}
	ret = io_uring_queue_init(CTRL_DEPTH, &c->ring, IORING_SETUP_SQE128);
	if (ret) {
		close(c->fd);
		c->fd = -1;
		return log_error(
			ret, "io_uring%s",
			ret == -EPERM ? " is disabled here (sysctl kernel.io_uring_disabled)" : "");
	}
	return 0;
}

void ctrl_close(struct ctrl *c)
{
	if (c->fd < 0)
		return;
	io_uring_queue_exit(&c->ring);
	close(c->fd);
	free(c->early);
	*c = CTRL_CLOSED;
}

void ctrl_add_worker(struct ctrl *c)
{
	unsigned int nr[2] = { 0, 0 }; /* bounded, unbounded; 0: as it is, and is told */

	if (io_uring_register_iowq_max_workers(&c->ring, nr) || !nr[0])
		return;
	nr[0]++;
	nr[1] = 0;
	io_uring_register_iowq_max_workers(&c->ring, nr);
}

static int submit(struct ctrl *c, unsigned int cmd_op, const struct uapi_ctrl_cmd *cmd,
		  uint64_t cookie)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);
	int ret;

	if (!sqe)
		return -EAGAIN;
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = c->fd;
	sqe->off = cmd_op;
	sqe->user_data = cookie;
	memcpy(&sqe->addr3, cmd, sizeof(*cmd));
	/*
	 * The driver refuses to run a command at once, and io_uring of some kernels lets a worker
	 * read it from the ring later, when another one may be in its place. Asked for a worker
	 * in the first place, it makes its copy now.
	 */
	sqe->flags = IOSQE_ASYNC;
	ret = io_uring_submit(&c->ring);
	if (ret >= 0)
		return 0;
	/* The entry stays in the ring and goes with the next one. */
	io_uring_prep_nop(sqe);
	sqe->user_data = TAKEN_BACK_COOKIE;
	return ret;
}

/*
 * A result that comes early must be kept, so there is room for it before the command goes
 * out: afterwards it would be too late to say that there is no memory.
 */
static int reserve_early(struct ctrl *c)
{
	unsigned int nr = c->nr_early + c->nr_async + 1;
	struct ctrl_early *more;

	if (nr <= c->max_early)
		return 0;
	more = reallocarray(c->early, nr, sizeof(*more));
	if (!more)
		return -ENOMEM;
	c->early = more;
	c->max_early = nr;
	return 0;
}

static int submit_async(struct ctrl *c, unsigned int cmd_op, const struct uapi_ctrl_cmd *cmd,
			void *cookie)
{
	int ret = reserve_early(c);

	if (!ret)
		ret = submit(c, cmd_op, cmd, (uintptr_t)cookie);
	if (!ret)
		c->nr_async++;
	return ret;
}

static bool is_async(const struct io_uring_cqe *cqe)
{
	return cqe->user_data != SYNC_COOKIE && cqe->user_data != TAKEN_BACK_COOKIE;
}

/* The completion of an asynchronous command, for ctrl_collect(). */
static void keep_early(struct ctrl *c, const struct io_uring_cqe *cqe)
{
	c->early[c->nr_early++] = (struct ctrl_early){ .cookie = cqe->user_data, .res = cqe->res };
	c->nr_async--;
}

/*
 * Whatever keeps us from waiting, the command is under way, with memory of its caller's, and its
 * answer must not be taken for the next one's.
 */
static struct io_uring_cqe *wait_cqe(struct ctrl *c)
{
	struct pollfd ring = { .fd = c->ring.ring_fd, .events = POLLIN };
	struct io_uring_cqe *cqe;
	int err;

	while ((err = io_uring_wait_cqe(&c->ring, &cqe)) != 0)
		if (err != -EINTR)
			poll(&ring, 1, WAIT_AGAIN_MS);
	return cqe;
}

static int wait_sync(struct ctrl *c)
{
	bool found = false;
	int res = 0;

	while (!found) {
		struct io_uring_cqe *cqe = wait_cqe(c);

		found = cqe->user_data == SYNC_COOKIE;
		if (found)
			res = cqe->res;
		else if (is_async(cqe))
			keep_early(c, cqe);
		io_uring_cqe_seen(&c->ring, cqe);
	}
	return res;
}

static int command(struct ctrl *c, unsigned int cmd_op, const struct uapi_ctrl_cmd *cmd)
{
	int ret = submit(c, cmd_op, cmd, SYNC_COOKIE);

	return ret ? ret : wait_sync(c);
}

static struct uapi_ctrl_cmd plain(unsigned int device)
{
	return (struct uapi_ctrl_cmd){ .dev_id = device, .queue_id = UINT16_MAX };
}

static struct uapi_ctrl_cmd with_buffer(unsigned int device, const void *buf, size_t len)
{
	struct uapi_ctrl_cmd cmd = plain(device);

	cmd.addr = (uintptr_t)buf;
	cmd.len = (uint16_t)len;
	return cmd;
}

int ctrl_get_features(struct ctrl *c, uint64_t *ret)
{
	uint64_t features = 0;
	struct uapi_ctrl_cmd cmd = with_buffer(UINT32_MAX, &features, UBLK_FEATURES_LEN);
	int err = command(c, UBLK_U_CMD_GET_FEATURES, &cmd);

	if (err < 0)
		return err;
	*ret = features;
	return 0;
}

int ctrl_add_dev(struct ctrl *c, struct ublksrv_ctrl_dev_info *info)
{
	struct uapi_ctrl_cmd cmd = with_buffer(info->dev_id, info, sizeof(*info));

	return command(c, UBLK_U_CMD_ADD_DEV, &cmd);
}

int ctrl_get_info(struct ctrl *c, unsigned int device, struct ublksrv_ctrl_dev_info *ret)
{
	struct uapi_ctrl_cmd cmd = with_buffer(device, ret, sizeof(*ret));

	return command(c, UBLK_U_CMD_GET_DEV_INFO, &cmd);
}

int ctrl_set_params(struct ctrl *c, unsigned int device, struct uapi_params *params)
{
	struct uapi_ctrl_cmd cmd = with_buffer(device, params, sizeof(*params));

	params->len = sizeof(*params);
	return command(c, UBLK_U_CMD_SET_PARAMS, &cmd);
}

int ctrl_start_dev(struct ctrl *c, unsigned int device, int server_pid)
{
	struct uapi_ctrl_cmd cmd = plain(device);

	cmd.data[0] = (uint64_t)server_pid;
	return command(c, UBLK_U_CMD_START_DEV, &cmd);
}

int ctrl_stop_dev(struct ctrl *c, unsigned int device)
{
	struct uapi_ctrl_cmd cmd = plain(device);

	return command(c, UBLK_U_CMD_STOP_DEV, &cmd);
}

int ctrl_del_dev(struct ctrl *c, unsigned int device)
{
	struct uapi_ctrl_cmd cmd = plain(device);
	int ret = command(c, UBLK_U_CMD_DEL_DEV_ASYNC, &cmd);

	return ret == -EOPNOTSUPP || ret == -EINVAL ? command(c, UBLK_U_CMD_DEL_DEV, &cmd) : ret;
}

int ctrl_get_params(struct ctrl *c, unsigned int device, struct uapi_params *ret)
{
	struct uapi_ctrl_cmd cmd = with_buffer(device, ret, sizeof(*ret));

	ret->len = sizeof(*ret);
	return command(c, UBLK_U_CMD_GET_PARAMS, &cmd);
}

int ctrl_get_affinity(struct ctrl *c, unsigned int device, unsigned int queue, cpu_set_t *ret)
{
	struct uapi_ctrl_cmd cmd = with_buffer(device, ret, sizeof(*ret));

	CPU_ZERO(ret);
	cmd.data[0] = queue;
	return command(c, UBLK_U_CMD_GET_QUEUE_AFFINITY, &cmd);
}

int ctrl_update_size(struct ctrl *c, unsigned int device, uint64_t sectors)
{
	struct uapi_ctrl_cmd cmd = plain(device);

	cmd.data[0] = sectors;
	return command(c, UBLK_U_CMD_UPDATE_SIZE, &cmd);
}

int ctrl_start_recovery(struct ctrl *c, unsigned int device)
{
	struct uapi_ctrl_cmd cmd = plain(device);

	return command(c, UBLK_U_CMD_START_USER_RECOVERY, &cmd);
}

int ctrl_end_recovery(struct ctrl *c, unsigned int device, int server_pid)
{
	struct uapi_ctrl_cmd cmd = plain(device);

	cmd.data[0] = (uint64_t)server_pid;
	return command(c, UBLK_U_CMD_END_USER_RECOVERY, &cmd);
}

int ctrl_reg_buf(struct ctrl *c, unsigned int device, const struct uapi_shmem_buf_reg *reg,
		 void *cookie)
{
	struct uapi_ctrl_cmd cmd = with_buffer(device, reg, sizeof(*reg));

	return submit_async(c, UBLK_U_CMD_REG_BUF, &cmd, cookie);
}

int ctrl_unreg_buf(struct ctrl *c, unsigned int device, unsigned int index, void *cookie)
{
	struct uapi_ctrl_cmd cmd = plain(device);

	cmd.data[0] = index;
	return submit_async(c, UBLK_U_CMD_UNREG_BUF, &cmd, cookie);
}

int ctrl_list_bufs(struct ctrl *c, unsigned int device, unsigned int first,
		   struct uapi_shmem_buf_info *ret, unsigned int nr)
{
	unsigned int most = UINT16_MAX / sizeof(*ret);
	struct uapi_ctrl_cmd cmd = with_buffer(device, ret, (nr < most ? nr : most) * sizeof(*ret));

	cmd.data[0] = first;
	return command(c, UAPI_CMD_LIST_BUFS, &cmd);
}

int ctrl_fd(const struct ctrl *c)
{
	return c->ring.ring_fd;
}

bool ctrl_has_early(const struct ctrl *c)
{
	return c->next_early < c->nr_early;
}

int ctrl_collect(struct ctrl *c, void **ret_cookie, int *ret_res)
{
	struct io_uring_cqe *cqe;

	if (c->next_early < c->nr_early) {
		*ret_cookie = (void *)(uintptr_t)c->early[c->next_early].cookie;
		*ret_res = c->early[c->next_early].res;
		if (++c->next_early == c->nr_early)
			c->next_early = c->nr_early = 0;
		return 1;
	}
	while (io_uring_peek_cqe(&c->ring, &cqe) == 0 && !is_async(cqe))
		io_uring_cqe_seen(&c->ring, cqe);
	if (io_uring_peek_cqe(&c->ring, &cqe) != 0)
		return 0;
	c->nr_async--;
	*ret_cookie = (void *)(uintptr_t)cqe->user_data;
	*ret_res = cqe->res;
	io_uring_cqe_seen(&c->ring, cqe);
	return 1;
}
