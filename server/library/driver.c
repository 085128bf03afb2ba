/* SPDX-License-Identifier: MIT */
/*
 * driver.c - the driver below the buffers: by control commands of ours, or of the server's.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "common/log.h"
#include "server_internal.h"

_Static_assert(sizeof(struct ublkzc_server_buffer) == sizeof(struct uapi_shmem_buf_reg), "ABI");
_Static_assert(offsetof(struct ublkzc_server_buffer, flags) ==
		       offsetof(struct uapi_shmem_buf_reg, flags),
	       "ABI");
_Static_assert(UBLKZC_SERVER_F_SHMEM_ZC == UBLK_F_SHMEM_ZC, "ABI");
_Static_assert(UBLKZC_SERVER_IO_MATCHED == UAPI_IO_F_SHMEM_ZC, "ABI");

int server_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	struct ublkzc_server *s = arg;

	if (s->options.reg)
		return s->options.reg(s->options.arg, (const struct ublkzc_server_buffer *)reg,
				      cookie);
	return ctrl_reg_buf(&s->ctrl, s->options.device, reg, cookie);
}

int server_unreg(void *arg, unsigned int index, void *cookie)
{
	struct ublkzc_server *s = arg;

	if (s->options.unreg)
		return s->options.unreg(s->options.arg, index, cookie);
	return ctrl_unreg_buf(&s->ctrl, s->options.device, index, cookie);
}

int server_list(void *arg, unsigned int first, struct uapi_shmem_buf_info *ret, unsigned int nr)
{
	struct ublkzc_server *s = arg;

	return ctrl_list_bufs(&s->ctrl, s->options.device, first, ret, nr);
}

void ublkzc_server_answered(struct ublkzc_server *s, void *cookie, int result)
{
	buffers_finished(&s->buffers, cookie, result);
}

void server_collect(struct ublkzc_server *s)
{
	void *cookie;
	int res;

	while (s->ctrl.fd >= 0 && ctrl_collect(&s->ctrl, &cookie, &res))
		ublkzc_server_answered(s, cookie, res);
}

int server_open_driver(struct ublkzc_server *s)
{
	struct ublksrv_ctrl_dev_info info = { 0 };
	int ret;

	s->waits = s->options.flags & UBLKZC_SERVER_TAKES_OVER;
	if (s->options.reg)
		return 0;
	ret = ctrl_open(&s->ctrl);
	if (ret < 0)
		return ret;
	ctrl_add_worker(&s->ctrl);
	ret = ctrl_get_info(&s->ctrl, s->options.device, &info);
	if (ret < 0)
		return log_error(ret, "device %u", s->options.device);
	if (!(info.flags & UBLK_F_SHMEM_ZC))
		return log_error(-EOPNOTSUPP, "device %u was added without UBLK_F_SHMEM_ZC",
				 s->options.device);
	s->lists = (info.flags & UAPI_F_SHMEM_LIST) != 0;
	return 0;
}

void ublkzc_server_live(struct ublkzc_server *s)
{
	if (!s->waits)
		return;
	s->waits = false;
	buffers_resume(&s->buffers, BUFFERS_ALL_INDICES);
}
