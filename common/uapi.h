/* SPDX-License-Identifier: MIT */
/*
 * uapi.h - kernel interface names that the installed headers may lack.
 *
 * The only file that fills in what <linux/ublk_cmd.h> of an older
 * distribution does not have: everyone else includes this file and may
 * assume a current kernel's names.  Debian 12 ships the header of 6.1, the
 * running kernel may be 7.x.  Macros are added when missing; structures that
 * grew after 6.1 are declared here under our own names (struct uapi_*), so
 * that they cannot collide with whatever the system header declares.
 *
 * Source of every number: include/uapi/linux/ublk_cmd.h of Linux 7.2, and
 * Documentation/block/ublk.rst there.  Ask the running kernel what it can do
 * with UBLK_U_CMD_GET_FEATURES; never compare versions.
 */
#ifndef UBLKZC_COMMON_UAPI_H
#define UBLKZC_COMMON_UAPI_H

#include <assert.h>
#include <linux/ioctl.h>
#include <linux/ublk_cmd.h>
#include <stddef.h>
#include <stdint.h>

/* Feature bits of ublksrv_ctrl_dev_info.flags, by the kernel that added them. */
#ifndef UBLK_F_UNPRIVILEGED_DEV
#define UBLK_F_UNPRIVILEGED_DEV (1UL << 5) /* 6.3 */
#endif
#ifndef UBLK_F_CMD_IOCTL_ENCODE
#define UBLK_F_CMD_IOCTL_ENCODE (1UL << 6) /* 6.4 */
#endif
#ifndef UBLK_F_USER_COPY
#define UBLK_F_USER_COPY (1UL << 7) /* 6.5 */
#endif
#ifndef UBLK_F_ZONED
#define UBLK_F_ZONED (1ULL << 8) /* 6.6 */
#endif
#ifndef UBLK_F_USER_RECOVERY_FAIL_IO
#define UBLK_F_USER_RECOVERY_FAIL_IO (1ULL << 9) /* 6.13 */
#endif
#ifndef UBLK_F_UPDATE_SIZE
#define UBLK_F_UPDATE_SIZE (1ULL << 10) /* 6.16 */
#endif
#ifndef UBLK_F_AUTO_BUF_REG
#define UBLK_F_AUTO_BUF_REG (1ULL << 11) /* 6.16 */
#endif
#ifndef UBLK_F_QUIESCE
#define UBLK_F_QUIESCE (1ULL << 12) /* 6.16 */
#endif
#ifndef UBLK_F_PER_IO_DAEMON
#define UBLK_F_PER_IO_DAEMON (1ULL << 13) /* 6.16 */
#endif
#ifndef UBLK_F_BUF_REG_OFF_DAEMON
#define UBLK_F_BUF_REG_OFF_DAEMON (1ULL << 14) /* 6.17 */
#endif
#ifndef UBLK_F_BATCH_IO
#define UBLK_F_BATCH_IO (1ULL << 15) /* 7.0 */
#endif
#ifndef UBLK_F_INTEGRITY
#define UBLK_F_INTEGRITY (1ULL << 16) /* 7.0 */
#endif
#ifndef UBLK_F_SAFE_STOP_DEV
#define UBLK_F_SAFE_STOP_DEV (1ULL << 17) /* 7.0 */
#endif
#ifndef UBLK_F_NO_AUTO_PART_SCAN
#define UBLK_F_NO_AUTO_PART_SCAN (1ULL << 18) /* 7.0 */
#endif
#ifndef UBLK_F_SHMEM_ZC
#define UBLK_F_SHMEM_ZC (1ULL << 19) /* 7.1, and our kernel-patch/ */
#endif

/* Device states beyond DEAD, LIVE and QUIESCED. */
#define UAPI_S_DEV_FAIL_IO 3 /* 6.13 */

/*
 * Control commands, all ioctl-encoded over the 32-byte control command.
 * Issued as IORING_OP_URING_CMD on /dev/ublk-control with a 128-byte SQE.
 */
struct uapi_ctrl_cmd {
	uint32_t dev_id;
	uint16_t queue_id; /* 0xffff when the command is for no queue */
	uint16_t len;	   /* bytes at addr */
	uint64_t addr;
	uint64_t data[1];
	uint16_t dev_path_len; /* unprivileged devices: path in front of addr's data */
	uint16_t pad;
	uint32_t reserved;
};
static_assert(sizeof(struct uapi_ctrl_cmd) == 32, "ABI");
static_assert(offsetof(struct uapi_ctrl_cmd, data) == 16, "ABI");

#define UAPI_CTRL_R(nr) _IOR('u', (nr), struct uapi_ctrl_cmd)
#define UAPI_CTRL_WR(nr) _IOWR('u', (nr), struct uapi_ctrl_cmd)

#ifndef UBLK_U_CMD_ADD_DEV
#define UBLK_U_CMD_GET_QUEUE_AFFINITY UAPI_CTRL_R(0x01)
#define UBLK_U_CMD_GET_DEV_INFO UAPI_CTRL_R(0x02)
#define UBLK_U_CMD_ADD_DEV UAPI_CTRL_WR(0x04)
#define UBLK_U_CMD_DEL_DEV UAPI_CTRL_WR(0x05)
#define UBLK_U_CMD_START_DEV UAPI_CTRL_WR(0x06)
#define UBLK_U_CMD_STOP_DEV UAPI_CTRL_WR(0x07)
#define UBLK_U_CMD_SET_PARAMS UAPI_CTRL_WR(0x08)
#define UBLK_U_CMD_GET_PARAMS UAPI_CTRL_R(0x09)
#define UBLK_U_CMD_START_USER_RECOVERY UAPI_CTRL_WR(0x10)
#define UBLK_U_CMD_END_USER_RECOVERY UAPI_CTRL_WR(0x11)
#define UBLK_U_CMD_GET_DEV_INFO2 UAPI_CTRL_R(0x12)
#endif
#ifndef UBLK_U_CMD_GET_FEATURES
#define UBLK_U_CMD_GET_FEATURES UAPI_CTRL_R(0x13) /* 6.5 */
#endif
#ifndef UBLK_FEATURES_LEN
#define UBLK_FEATURES_LEN 8 /* bytes */
#endif
#ifndef UBLK_U_CMD_DEL_DEV_ASYNC
#define UBLK_U_CMD_DEL_DEV_ASYNC UAPI_CTRL_R(0x14) /* 6.9 */
#endif
#ifndef UBLK_U_CMD_UPDATE_SIZE
#define UBLK_U_CMD_UPDATE_SIZE UAPI_CTRL_WR(0x15) /* 6.16 */
#endif
#ifndef UBLK_U_CMD_QUIESCE_DEV
#define UBLK_U_CMD_QUIESCE_DEV UAPI_CTRL_WR(0x16) /* 6.16 */
#endif
#ifndef UBLK_U_CMD_REG_BUF
#define UBLK_U_CMD_REG_BUF UAPI_CTRL_WR(0x18) /* 7.1: result is the index, >= 0 */
#endif
#ifndef UBLK_U_CMD_UNREG_BUF
#define UBLK_U_CMD_UNREG_BUF UAPI_CTRL_WR(0x19) /* 7.1: data[0] = index */
#endif

/* Operation of an io descriptor: fill the data with struct blk_zone; its nr_sectors counts zones. */
#define UAPI_IO_OP_REPORT_ZONES 18 /* 6.6 */

/* Queue commands, issued on /dev/ublkcN. */
#ifndef UBLK_U_IO_FETCH_REQ
#define UBLK_U_IO_FETCH_REQ _IOWR('u', 0x20, struct ublksrv_io_cmd)
#define UBLK_U_IO_COMMIT_AND_FETCH_REQ _IOWR('u', 0x21, struct ublksrv_io_cmd)
#define UBLK_U_IO_NEED_GET_DATA _IOWR('u', 0x22, struct ublksrv_io_cmd)
#endif

/* pread/pwrite offsets into /dev/ublkcN with UBLK_F_USER_COPY. */
#ifndef UBLK_IO_BUF_BITS
#define UBLK_IO_BUF_BITS 25
#define UBLK_TAG_OFF UBLK_IO_BUF_BITS
#define UBLK_TAG_BITS 16
#define UBLK_QID_OFF (UBLK_TAG_OFF + UBLK_TAG_BITS)
#define UBLK_QID_BITS 12
#endif
#ifndef UBLK_MAX_NR_QUEUES
#define UBLK_MAX_NR_QUEUES (1U << UBLK_QID_BITS)
#endif

/* Shared-memory zero copy. */
#define UAPI_IO_F_SHMEM_ZC (1U << 19) /* in op_flags itself, not op_flags >> 8 */
#define UAPI_IO_F_NOUNMAP (1U << 15)  /* WRITE_ZEROES: keep blocks allocated */
#define UAPI_SHMEM_BUF_READ_ONLY (1U << 0)
#define UAPI_SHMEM_BUF_SIZE_MAX (1ULL << 32) /* bytes, inclusive */
#define UAPI_SHMEM_BUF_INDEX_MAX 65535U

struct uapi_shmem_buf_reg {
	uint64_t addr; /* page-aligned address in the caller's memory */
	uint64_t len;  /* bytes, page-aligned, one page .. 4 GiB */
	uint32_t flags;
	uint32_t reserved; /* zero */
};
static_assert(sizeof(struct uapi_shmem_buf_reg) == 24, "ABI");

/*
 * Extensions of kernel-patch/, which are not in Linux: feature bits that count down from 62,
 * and what they bring. The driver's own header says it in full.
 */
#define UAPI_F_SHMEM_LIST (1ULL << 62)
#define UAPI_F_SHMEM_SEGS (1ULL << 61)
#define UAPI_CMD_LIST_BUFS UAPI_CTRL_WR(0xe0) /* data[0]: first index; result: how many */

#define UAPI_SHMEM_BUF_DYING (1U << 31) /* being unregistered: goes with its last request */
#define UAPI_SHMEM_BUF_FOREIGN (1U << 30) /* another process's memory */
#define UAPI_SHMEM_BUF_ENDED (1U << 29)	  /* which is gone; the index waits for UNREG_BUF */
struct uapi_shmem_buf_info {
	uint64_t len; /* bytes */
	uint32_t index;
	uint32_t flags;	  /* UAPI_SHMEM_BUF_* */
	uint32_t nr_runs; /* physically contiguous pieces */
	uint32_t pid;	  /* whose memory, of BUF_FOREIGN; else 0 */
};
static_assert(sizeof(struct uapi_shmem_buf_info) == 24, "ABI");

/* In op_flags: the address is the number of segments in the tag's list. */
#define UAPI_IO_F_SHMEM_SEGS (1U << 30)
#define UAPI_SHMEM_SEGS_MAX 256U
struct uapi_shmem_seg {
	uint64_t offset; /* in the buffer */
	uint32_t len;	 /* bytes */
	uint16_t index;
	uint16_t reserved;
};
static_assert(sizeof(struct uapi_shmem_seg) == 16, "ABI");

/* Private memory of another process, in place; it ends when any of it is gone. */
#define UAPI_F_SHMEM_FOREIGN (1ULL << 60)
#define UAPI_CMD_REG_FOREIGN UAPI_CTRL_WR(0xe1) /* result: the index */
#define UAPI_FOREIGN_OFFSET (1ULL << 56)	/* in the char device; + (index << 32) */
struct uapi_shmem_foreign_reg {
	uint64_t addr; /* page-aligned address in the process's memory */
	uint64_t len;
	uint32_t pid;
	int32_t event_fd; /* an eventfd which is told the end, or -1 */
	uint64_t reserved;
};
static_assert(sizeof(struct uapi_shmem_foreign_reg) == 32, "ABI");

/* Where requests were that did not match. */
#define UAPI_F_SHMEM_HINTS (1ULL << 59)
#define UAPI_CMD_HINTS UAPI_CTRL_WR(0xe2) /* data[0]: gather for so many seconds; result: how many */
#define UAPI_HINT_SECONDS_MAX 3600U
#define UAPI_HINT_PRIVATE (1U << 0)
#define UAPI_HINT_FILE (1U << 1)
struct uapi_shmem_hint {
	uint64_t addr; /* in the process's memory or, with HINT_FILE, in the file */
	uint32_t len;
	uint32_t pid; /* 0: not known */
	uint32_t nr;  /* how often */
	uint32_t flags;
};
static_assert(sizeof(struct uapi_shmem_hint) == 24, "ABI");

/* A matched request's io descriptor address: bits 0-31 offset, 32-47 index. */
static inline uint32_t uapi_shmem_offset(uint64_t addr)
{
	return (uint32_t)addr;
}

static inline uint32_t uapi_shmem_index(uint64_t addr)
{
	return (uint32_t)(addr >> 32) & 0xffff;
}

/* Device parameters; the 6.1 header stops after the first two groups. */
struct uapi_param_devt {
	uint32_t char_major;
	uint32_t char_minor;
	uint32_t disk_major;
	uint32_t disk_minor;
};

struct uapi_param_zoned {
	uint32_t max_open_zones;
	uint32_t max_active_zones;
	uint32_t max_zone_append_sectors;
	uint8_t reserved[20];
};

struct uapi_param_dma_align {
	uint32_t alignment; /* mask, as in 511 */
	uint8_t pad[4];
};

struct uapi_param_segment {
	uint64_t seg_boundary_mask;
	uint32_t max_segment_size; /* bytes, 0 = default */
	uint16_t max_segments;	   /* 0 = default */
	uint8_t pad[2];
};

struct uapi_params {
	uint32_t len;	/* bytes of this structure that both sides know */
	uint32_t types; /* UBLK_PARAM_TYPE_* | UAPI_PARAM_TYPE_* */
	struct ublk_param_basic basic;
	struct ublk_param_discard discard;
	struct uapi_param_devt devt;
	struct uapi_param_zoned zoned;
	struct uapi_param_dma_align dma;
	struct uapi_param_segment seg;
};
#define UAPI_PARAM_TYPE_DEVT (1 << 2)
#define UAPI_PARAM_TYPE_ZONED (1 << 3)
#define UAPI_PARAM_TYPE_DMA_ALIGN (1 << 4) /* 6.15 */
#define UAPI_PARAM_TYPE_SEGMENT (1 << 5)   /* 6.15 */

#endif
