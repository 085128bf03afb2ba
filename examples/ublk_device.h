/* SPDX-License-Identifier: MIT */
/*
 * ublk_device.h - a ublk device with one queue, by control commands: what every ublk server has.
 *
 * Whatever goes wrong ends the program. The device has UBLK_F_USER_RECOVERY, so it waits for
 * another.
 */
#ifndef UBLK_DEVICE_H
#define UBLK_DEVICE_H

#include <liburing.h>
#include <linux/ublk_cmd.h>
#include <stdbool.h>

#define DEPTH 32U	    /* requests at once */
#define MAX_IO (512U << 10) /* bytes of each, at most */

struct ublk_device {
	unsigned int number; /* N of /dev/ublkbN */
	int fd;		     /* /dev/ublkcN */
	const struct ublksrv_io_desc *descs;
	bool recovering;
	int control;
	/* One command is under way at most. Readable when it has ended: commands that wait for
	 * requests run in a worker of the kernel, while the caller serves them. */
	struct io_uring commands;
};

/* Add device @number of @bytes, or begin to recover it. All tags are to be fetched next. */
void device_open(struct ublk_device *d, unsigned int number, unsigned long long bytes,
		 bool recovering);

/* START_DEV or END_USER_RECOVERY, which end when all tags have been fetched. */
void device_begin_start(struct ublk_device *d);
void device_end_start(struct ublk_device *d);

/* STOP_DEV, which ends when all requests have; then the device can be deleted. */
void device_begin_stop(struct ublk_device *d);
void device_delete(struct ublk_device *d);

/* Queue command for @tag: fetch its next request, after having completed the last if @commit. */
void device_prepare(const struct ublk_device *d, struct io_uring_sqe *sqe, unsigned int tag,
		    bool commit, int result);

#endif
