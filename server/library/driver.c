/* SPDX-License-Identifier: MIT */
/*
 * driver.c - the driver below the buffers: by control commands of ours, or of the server's.
 *
 * What a dead server had registered is unregistered before anything new is registered, so
 * that no index is ever taken for another's.
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

/* What cannot be asked for now counts as answered: it stays registered, and is copied. */
static void drop_stale(struct ublkzc_server *s)
{
	int index;

	while (s->stale && !s->waits && (index = stale_next(s->stale)) >= 0) {
		int ret = server_unreg(s, (unsigned int)index, s->stale);

		if (ret)
			stale_answered(s->stale, ret);
	}
	if (!s->stale || s->waits || !stale_done(s->stale))
		return;
	if (s->stale->dropped)
		log_line(LOG_WARN, "%u buffers of a dead server are unregistered",
			 s->stale->dropped);
	free(s->stale);
	s->stale = NULL;
	if (!s->stopped)
		buffers_pause(&s->buffers, false);
}

void ublkzc_server_answered(struct ublkzc_server *s, void *cookie, int result)
{
	if (s->stale && cookie == s->stale) {
		stale_answered(s->stale, result);
		/* For the next of them; not from here, which may be within unreg(). */
		server_wake_in(s, 0);
	} else {
		buffers_finished(&s->buffers, cookie, result);
	}
}

void server_collect(struct ublkzc_server *s)
{
	void *cookie;
	int res;

	while (s->ctrl.fd >= 0 && ctrl_collect(&s->ctrl, &cookie, &res))
		ublkzc_server_answered(s, cookie, res);
	drop_stale(s);
}

static int list_stale(struct ublkzc_server *s)
{
	struct uapi_shmem_buf_info infos[256];
	unsigned int next = 0;
	int nr;

	while (next <= UAPI_SHMEM_BUF_INDEX_MAX &&
	       (nr = ctrl_list_bufs(&s->ctrl, s->options.device, next, infos, 256)) != 0) {
		if (nr < 0)
			return nr;
		for (int i = 0; i < nr; i++)
			s->stale->indices[infos[i].index / 8] |=
				(uint8_t)(1U << (infos[i].index % 8));
		next = infos[nr - 1].index + 1;
	}
	s->stale->listed = true;
	return 0;
}

int server_open_driver(struct ublkzc_server *s)
{
	struct ublksrv_ctrl_dev_info info = { 0 };
	int ret;

	if (s->options.flags & UBLKZC_SERVER_TAKES_OVER) {
		s->waits = true;
		s->stale = calloc(1, sizeof(*s->stale));
		if (!s->stale)
			return -ENOMEM;
	}
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
	int ret = 0;

	if (!s->waits)
		return;
	s->waits = false;
	if (s->lists)
		ret = list_stale(s);
	if (ret) /* then they are looked for */
		log_error(ret, "device %u: what the driver has", s->options.device);
	drop_stale(s);
}
