/* SPDX-License-Identifier: MIT */
/* features.c - as in include/uapi/linux/ublk_cmd.h of Linux 7.2, and of kernel-patch/. */
#include "features.h"

#include <stddef.h>

#include "common/uapi.h"

static const char *const names[] = {
	"SUPPORT_ZERO_COPY",
	"URING_CMD_COMP_IN_TASK",
	"NEED_GET_DATA",
	"USER_RECOVERY",
	"USER_RECOVERY_REISSUE",
	"UNPRIVILEGED_DEV",
	"CMD_IOCTL_ENCODE",
	"USER_COPY",
	"ZONED",
	"USER_RECOVERY_FAIL_IO",
	"UPDATE_SIZE",
	"AUTO_BUF_REG",
	"QUIESCE",
	"PER_IO_DAEMON",
	"BUF_REG_OFF_DAEMON",
	"BATCH_IO",
	"INTEGRITY",
	"SAFE_STOP_DEV",
	"NO_AUTO_PART_SCAN",
	"SHMEM_ZC",
};

const char *feature_name(unsigned int bit)
{
	if (1ULL << bit == UAPI_F_SHMEM_LIST)
		return "SHMEM_LIST (kernel-patch)";
	if (1ULL << bit == UAPI_F_SHMEM_SEGS)
		return "SHMEM_SEGS (kernel-patch)";
	return bit < sizeof(names) / sizeof(names[0]) ? names[bit] : NULL;
}
