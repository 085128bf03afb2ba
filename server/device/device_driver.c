/* SPDX-License-Identifier: MIT */
/* device_driver.c - the device as the driver knows it: what it can, its limits, its node. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "device_internal.h"

#define DISCARD_SECTORS_MAX (1U << 21) /* 1 GiB */
#define CLIENT_ALIGN 4U /* bytes: the least that the block layer knows */

static int explain_add_error(const struct device *d, int ret)
{
	if (ret == -EEXIST)
		return log_error(ret, "device id %d is in use (ublkzc list; -n chooses another)",
				 d->options->device);
	if (ret == -EPERM || ret == -EACCES)
		return log_error(ret, "adding a ublk device needs root (CAP_SYS_ADMIN)");
	return log_error(ret, "add the device");
}

/* What happens to I/O while there is no server. */
static int set_recovery(struct device *d, uint64_t features)
{
	uint64_t flags = 0;

	if (d->options->recovery == RECOVERY_REISSUE)
		flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE;
	else if (d->options->recovery == RECOVERY_FAIL)
		flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_FAIL_IO;
	d->info.flags |= flags;
	if ((features & flags) == flags)
		return 0;
	return log_error(-EOPNOTSUPP,
			 "--recovery %s: this kernel's ublk driver cannot (fail: Linux 6.13 and "
			 "newer can); --recovery none does without",
			 d->options->recovery == RECOVERY_FAIL ? "fail" : "reissue");
}

/* The driver takes what it can of what is asked for, without an error. */
static void say_what_is_less(const struct device *d)
{
	const struct options *o = d->options;

	if (d->info.nr_hw_queues < o->nr_queues)
		log_line(LOG_WARN, "%u hardware queues instead of %u: one per processor at most",
			 (unsigned int)d->info.nr_hw_queues, o->nr_queues);
	if (d->info.queue_depth < o->depth)
		log_line(LOG_WARN, "%u requests in flight per queue instead of %u",
			 (unsigned int)d->info.queue_depth, o->depth);
	if (d->info.max_io_buf_bytes < o->max_io)
		log_line(LOG_WARN, "requests of at most %u bytes instead of %u",
			 d->info.max_io_buf_bytes, o->max_io);
}

static int add_device(struct device *d)
{
	uint64_t features = 0;
	const uint64_t extensions = UAPI_F_SHMEM_LIST | UAPI_F_SHMEM_SEGS;
	bool wanted = !d->options->copy_only;
	int ret;

	ret = ctrl_get_features(&d->ctrl, &features);
	if (ret < 0 || !(features & UBLK_F_USER_COPY))
		return log_error(ret < 0 ? ret : -EOPNOTSUPP,
				 "this kernel's ublk driver has no UBLK_F_USER_COPY (Linux 6.5 and "
				 "newer have)");
	d->info = (struct ublksrv_ctrl_dev_info){
		.nr_hw_queues = (uint16_t)d->options->nr_queues,
		.queue_depth = (uint16_t)d->options->depth,
		.max_io_buf_bytes = d->target.max_io,
		.dev_id = (uint32_t)d->options->device,
		.flags = UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE,
	};
	if (wanted && (features & UBLK_F_SHMEM_ZC))
		d->info.flags |= UBLK_F_SHMEM_ZC | (features & extensions);
	ret = set_recovery(d, features);
	if (ret)
		return ret;
	ret = ctrl_add_dev(&d->ctrl, &d->info);
	if (ret < 0)
		return explain_add_error(d, ret);
	d->added = true;
	say_what_is_less(d);
	/* Older drivers clear flags that they do not know, without an error. */
	d->shmem_zc = (d->info.flags & UBLK_F_SHMEM_ZC) != 0;
	if (wanted && !d->shmem_zc)
		log_line(LOG_WARN, "this kernel's ublk driver has no shared-memory zero copy "
				   "(7.1 and newer have, or kernel-patch/): everything is copied");
	return 0;
}

static unsigned int shift_of(uint32_t power_of_two)
{
	return (unsigned int)__builtin_ctz(power_of_two);
}

static int set_params(struct device *d)
{
	const struct ublkzc_target *t = &d->target;
	struct uapi_params params = {
		.types = UBLK_PARAM_TYPE_BASIC | UAPI_PARAM_TYPE_DMA_ALIGN,
		.basic = {
			.logical_bs_shift = (uint8_t)shift_of(t->block_size),
			.physical_bs_shift = (uint8_t)shift_of(t->block_size < 4096 ? 4096 : t->block_size),
			.io_opt_shift = (uint8_t)shift_of(t->preferred < 4096 ? 4096 : t->preferred),
			.io_min_shift = (uint8_t)shift_of(t->block_size),
			.max_sectors = d->info.max_io_buf_bytes >> 9,
			.dev_sectors = t->size >> 9,
		},
		/*
		 * Clients' buffers must be so aligned (before 6.15 to 512 bytes): as little as
		 * possible, whatever the storage needs, because programs that align to 512 are
		 * right on every disk.  What the storage cannot take goes through our memory.
		 */
		.dma = { .alignment = CLIENT_ALIGN - 1 },
	};
	int ret;

	if (t->read_only)
		params.basic.attrs |= UBLK_ATTR_READ_ONLY;
	if (t->rotational)
		params.basic.attrs |= UBLK_ATTR_ROTATIONAL;
	if (t->volatile_cache)
		params.basic.attrs |= UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA;
	if (t->discard || t->write_zeroes) {
		params.types |= UBLK_PARAM_TYPE_DISCARD;
		params.discard = (struct ublk_param_discard){
			.discard_granularity = t->block_size < 4096 ? 4096 : t->block_size,
			.max_discard_sectors = t->discard ? DISCARD_SECTORS_MAX : 0,
			.max_write_zeroes_sectors = t->write_zeroes ? DISCARD_SECTORS_MAX : 0,
			.max_discard_segments = 1,
		};
	}
	ret = ctrl_set_params(&d->ctrl, d->info.dev_id, &params);
	return ret < 0 ? log_error(ret, "set the device's parameters") : 0;
}

int device_add(struct device *d)
{
	int ret = add_device(d);

	return ret ? ret : set_params(d);
}

int device_open_char(struct device *d)
{
	struct timespec pause = { .tv_nsec = 10000000 };
	char path[32];
	int ret;

	snprintf(path, sizeof(path), "/dev/ublkc%u", d->info.dev_id);
	/* udev may still be setting its mode: up to a second. */
	for (int i = 0; i < 100; i++) {
		d->char_fd = open(path, O_RDWR | O_CLOEXEC);
		if (d->char_fd >= 0)
			return 0;
		ret = -errno;
		if (ret != -ENOENT && ret != -EACCES)
			break;
		nanosleep(&pause, NULL);
	}
	return log_error(ret, "%s", path);
}
