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
/* another process's memory, see UBLKZC_F_SHMEM_FOREIGN */
#define UBLKZC_SHMEM_BUF_FOREIGN	(1U << 30)
/* (part of) that memory is gone: matches nothing, and waits for UNREG_BUF */
#define UBLKZC_SHMEM_BUF_ENDED		(1U << 29)

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
	__u32	pid;		/* whose, of BUF_FOREIGN; else 0 */
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

/*
 * The device knows UBLKZC_U_CMD_REG_FOREIGN, which registers private anonymous
 * memory of another process where it is; the process notices nothing. Needs
 * UBLKZC_F_SHMEM_LIST. Not of unprivileged devices, and not offered when the
 * module was loaded with foreign_memory=0.
 *
 * Only what is there already and the process's own alone is taken (nothing is
 * allocated, no copy-on-write is broken). The buffer lasts until any of it is
 * unmapped, discarded, moved, shared by a fork or wanted back by the kernel.
 * From that moment it matches nothing; the requests in it finish; the server's
 * mapping of it is revoked; the pages go. The event is signalled, and LIST has
 * BUF_ENDED, until UNREG_BUF has freed the index.
 *
 * The server reaches the data by mapping the char device, MAP_SHARED, at
 * UBLKZC_FOREIGN_OFFSET + (index << 32) + the offset in the buffer. There it may
 * use what a request that it has not completed yet is in, and whatever the
 * buffer holds until it has ended; anything else is SIGBUS. The mapping is of
 * the index: another buffer that gets it is seen there.
 */
#define UBLKZC_F_SHMEM_FOREIGN (1ULL << 60)

#define UBLKZC_U_CMD_REG_FOREIGN	\
	_IOWR('u', 0xe1, struct ublksrv_ctrl_cmd)

#define UBLKZC_FOREIGN_OFFSET		(1ULL << 56)

/*
 * Payload of UBLKZC_U_CMD_REG_FOREIGN; the result is the index. Needs
 * CAP_SYS_PTRACE. A pid, as the caller sees it, may be another process's by now:
 * who holds a pidfd asks it afterwards whether the process still lives.
 *
 * -ESRCH: no such process, or it has no memory. -EINVAL: not private anonymous
 * memory throughout, or no multiple of pages. -ENODATA: not all of it is there
 * and the process's own alone. -EAGAIN: it changed meanwhile. -EEXIST: some of
 * it is registered. Else as UBLK_U_CMD_REG_BUF.
 */
struct ublkzc_shmem_foreign_reg {
	__u64	addr;		/* page aligned, in the process's memory */
	__u64	len;		/* bytes, page aligned */
	__u32	pid;
	__s32	event_fd;	/* an eventfd, or -1 */
	__u64	reserved;	/* has to be zero */
};

/*
 * The device knows UBLKZC_U_CMD_HINTS, which says where requests were that did
 * not match. Not of unprivileged devices, and not offered when the module was
 * loaded with foreign_memory=0.
 */
#define UBLKZC_F_SHMEM_HINTS (1ULL << 59)

/*
 * Fill the array at addr, len bytes long, with hints, and forget those; the
 * result is how many there are in the array. Hints are gathered for the next
 * data[0] seconds, at most UBLKZC_HINT_SECONDS_MAX; not at all with 0, and
 * before the first call. Hints get lost: a few are kept, the most frequent
 * ones. Who has issued a request is a guess.
 */
#define UBLKZC_U_CMD_HINTS		\
	_IOWR('u', 0xe2, struct ublksrv_ctrl_cmd)

#define UBLKZC_HINT_SECONDS_MAX		3600

/* private anonymous memory: addr is where it was when it was first touched */
#define UBLKZC_HINT_PRIVATE		(1U << 0)
/* of a file or shared memory: addr is the offset in the file */
#define UBLKZC_HINT_FILE		(1U << 1)

struct ublkzc_shmem_hint {
	__u64	addr;		/* 0 without any flag: the kernel's own memory */
	__u32	len;		/* bytes, contiguous there */
	__u32	pid;		/* as the caller sees it; 0: not known */
	__u32	nr;		/* how often */
	__u32	flags;		/* UBLKZC_HINT_* */
};

#endif
