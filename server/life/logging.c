/* SPDX-License-Identifier: MIT */
/* logging.c - see logging.h. */
#include "logging.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

/* syslog(3)'s. */
static unsigned int priority(enum log_level level, char *buf, unsigned int size)
{
	static const int of[] = {
		[LOG_ERROR] = 3, [LOG_WARN] = 4, [LOG_INFO] = 6, [LOG_DEBUG] = 7
	};

	return log_format(buf, size, "<%d>", of[level]);
}

static unsigned int when(enum log_level level, char *buf, unsigned int size)
{
	static const char *const names[] = { [LOG_ERROR] = "error",
					     [LOG_WARN] = "warning",
					     [LOG_INFO] = "info",
					     [LOG_DEBUG] = "debug" };
	struct timespec now;
	struct tm utc;
	char text[64];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
	return log_format(buf, size, "%s.%c%c%cZ %s ", text, '0' + (int)(now.tv_nsec / 100000000),
			  '0' + (int)(now.tv_nsec / 10000000 % 10),
			  '0' + (int)(now.tv_nsec / 1000000 % 10), names[level]);
}

/* JOURNAL_STREAM is "device:inode" of what the journal gave us; somebody may have redirected it. */
static bool is_journal(void)
{
	const char *stream = secure_getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void logging_begin(void)
{
	log_prefix(is_journal() ? priority : NULL);
}

void logging_to_file(void)
{
	log_prefix(when);
}
