/* SPDX-License-Identifier: MIT */
/* features.c - as in include/uapi/linux/ublk_cmd.h of Linux 7.3, and of kernel-patch/. */
#include "features.h"

#include <stdio.h>
#include <string.h>

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
	"IO_DESC_SIZE",
};

#define OUR_SUFFIX "-ublkzc" /* kernel-patch/prepare */

const char *feature_name(unsigned int bit)
{
	if (1ULL << bit == UAPI_F_SHMEM_LIST)
		return "SHMEM_LIST (kernel-patch)";
	if (1ULL << bit == UAPI_F_SHMEM_SEGS)
		return "SHMEM_SEGS (kernel-patch)";
	if (1ULL << bit == UAPI_F_SHMEM_FOREIGN)
		return "SHMEM_FOREIGN (kernel-patch)";
	if (1ULL << bit == UAPI_F_SHMEM_HINTS)
		return "SHMEM_HINTS (kernel-patch)";
	return bit < sizeof(names) / sizeof(names[0]) ? names[bit] : NULL;
}

void driver_version(char *version, size_t size)
{
	FILE *f = fopen("/sys/module/ublk_drv/version", "re");

	version[0] = '\0';
	if (!f)
		return;
	if (!fgets(version, (int)size, f))
		version[0] = '\0';
	version[strcspn(version, "\n")] = '\0';
	fclose(f);
}

void driver_describe(char *text, size_t size, const char *version, const char *release)
{
	size_t len = strlen(version);
	size_t suffix = strlen(OUR_SUFFIX);
	/* "7.3" of "7.3.4+deb13-amd64" */
	size_t major = strcspn(release, ".");
	int line = (int)(release[major] ? major + 1 + strcspn(release + major + 1, ".-+") : major);

	if (len > suffix && strcmp(version + len - suffix, OUR_SUFFIX) == 0)
		snprintf(text, size, "ublkzc's driver %.*s for %.*s", (int)(len - suffix), version,
			 line, release);
	else if (len)
		snprintf(text, size, "a driver of version %s, on %.*s", version, line, release);
	else
		snprintf(text, size, "the stock driver of %.*s", line, release);
}
