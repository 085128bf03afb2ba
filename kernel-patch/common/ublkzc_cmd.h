/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Extensions of UBLK_F_SHMEM_ZC which are not in Linux. Feature bits count
 * down from 62, far from those that Linux gives out. A device has them only
 * when ADD_DEV asked for them, and UBLK_F_SHMEM_ZC with them.
 */
#ifndef UBLKZC_CMD_H
#define UBLKZC_CMD_H

#include <linux/types.h>

/* The device knows UBLKZC_U_CMD_LIST_BUFS. */
#define UBLKZC_F_SHMEM_LIST (1ULL << 62)

/*
 * A request whose data lies in registered buffers, but not in one piece, is
 * described to the server instead of being copied. The io descriptor then
 * carries UBLKZC_IO_F_SHMEM_SEGS and not UBLK_IO_F_SHMEM_ZC, its addr is the
 * number of segments, and the segments are where the server said in addr of
 * the FETCH_REQ or COMMIT_AND_FETCH_REQ of the tag: room for
 * UBLKZC_SHMEM_SEGS_MAX of struct ublkzc_shmem_seg. The device needs
 * UBLK_F_USER_COPY, because addr is free with it, and must not be zoned,
 * because there it is not. A tag without room, addr 0, gets no lists.
 */
#define UBLKZC_F_SHMEM_SEGS (1ULL << 61)

/* the data is in registered buffers, see UBLKZC_F_SHMEM_SEGS */
#define UBLKZC_IO_F_SHMEM_SEGS (1U << 30)

/* List the registered buffers of a device, see UBLKZC_F_SHMEM_LIST */
#define UBLKZC_U_CMD_LIST_BUFS		\
	_IOWR('u', 0xe0, struct ublksrv_ctrl_cmd)

/* being unregistered: matches nothing, and goes with its last request */
#define UBLKZC_SHMEM_BUF_DYING		(1U << 31)

/*
 * UBLKZC_U_CMD_LIST_BUFS fills the array at addr, len bytes long, with the
 * buffers from index data[0] upwards, in order. The result is how many there
 * are in the array, and 0 when there are no more.
 */
struct ublkzc_shmem_buf_info {
	__u64	len;		/* bytes */
	__u32	index;
	__u32	flags;		/* UBLK_SHMEM_BUF_*, UBLKZC_SHMEM_BUF_* */
	__u32	nr_runs;	/* physically contiguous pieces */
	__u32	reserved;
};

/* most segments of one request; one with more is copied */
#define UBLKZC_SHMEM_SEGS_MAX		256

/* a piece of a request's data, in the request's order */
struct ublkzc_shmem_seg {
	__u64	offset;		/* in the buffer, in bytes */
	__u32	len;		/* bytes, in any size */
	__u16	index;		/* of the buffer */
	__u16	reserved;
};

#endif
