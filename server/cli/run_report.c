/* SPDX-License-Identifier: MIT */
/*
 * run_report.c - see run_report.h.
 *
 * Processes that have become other users write to the file too, so anybody may
 * who knows its name.  The name is known to those who inherit it only: it is
 * random and in a directory that nobody else can list.  A stranger who could
 * truncate the file would end every process that maps it.
 */
#include "run_report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

static char directory[128];
static char path[sizeof(directory) + 16];
static int report_fd = -1;

static int make_directory(void)
{
	const char *tmp = getenv("TMPDIR");

	/* The library takes absolute paths only. */
	if (!tmp || tmp[0] != '/' || strlen(tmp) > sizeof(directory) - 32)
		tmp = "/tmp";
	snprintf(directory, sizeof(directory), "%s/ublkzc-run.XXXXXX", tmp);
	if (!mkdtemp(directory))
		return -errno;
	return chmod(directory, 0711) < 0 ? -errno : 0;
}

static int write_head(int fd)
{
	const struct report_file head = {
		.magic = REPORT_MAGIC,
		.slot_size = sizeof(struct report),
		.nr_slots = REPORT_SLOTS,
	};
	int ret;

	/* A hole that finds the disk full later would be SIGBUS. */
	ret = posix_fallocate(fd, 0, (off_t)REPORT_FILE_SIZE);
	if (ret)
		return -ret;
	if (pwrite(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
		return -EIO;
	return fchmod(fd, 0666) < 0 ? -errno : 0;
}

static void forget(void)
{
	if (report_fd >= 0) {
		close(report_fd);
		unlink(path);
	}
	rmdir(directory);
	report_fd = -1;
}

int run_report_make(void)
{
	int ret = make_directory();

	if (ret)
		return log_error(ret, "%s", directory);
	snprintf(path, sizeof(path), "%s/XXXXXX", directory);
	report_fd = mkostemp(path, O_CLOEXEC);
	ret = report_fd < 0 ? -errno : write_head(report_fd);
	if (ret) {
		forget();
		return log_error(ret, "%s", path);
	}
	setenv("UBLKZC_STATS_FILE", path, 1);
	unsetenv("UBLKZC_PROBE"); /* would end the program now that there is a file */
	return 0;
}

static void end_strings(struct report *r)
{
	r->program[sizeof(r->program) - 1] = '\0';
	r->off_reason[sizeof(r->off_reason) - 1] = '\0';
	r->buffered_path[sizeof(r->buffered_path) - 1] = '\0';
}

struct report_file *run_report_take(void)
{
	struct report_file *file;

	if (report_fd < 0)
		return NULL;
	/* Read, not mapped: the program may have truncated it, or still change it. */
	file = aligned_alloc(_Alignof(struct report_file), REPORT_FILE_SIZE);
	if (file && pread(report_fd, file, REPORT_FILE_SIZE, 0) != (ssize_t)REPORT_FILE_SIZE) {
		free(file);
		file = NULL;
	}
	forget();
	for (unsigned int i = 0; file && i < REPORT_SLOTS; i++)
		end_strings(&file->slots[i]);
	return file;
}
