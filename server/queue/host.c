/* SPDX-License-Identifier: MIT */
/* host.c - what engines may call: <ublkzc/engine.h>. */
#include <stdio.h>
#include <ublkzc/engine.h>

#include "common/log.h"
#include "server/life/holders.h"
#include "queue.h"

static void host_log(enum ublkzc_level level, const char *format, va_list args)
{
	static const enum log_level levels[] = {
		[UBLKZC_LOG_ERROR] = LOG_ERROR,
		[UBLKZC_LOG_WARNING] = LOG_WARN,
		[UBLKZC_LOG_INFO] = LOG_INFO,
		[UBLKZC_LOG_DEBUG] = LOG_DEBUG,
	};

	char line[LOG_LINE_MAX];

	if ((unsigned int)level > UBLKZC_LOG_DEBUG)
		return;
	vsnprintf(line, sizeof(line), format, args);
	log_line(levels[level], "%s", line);
}

static const struct ublkzc_host host = {
	.version = UBLKZC_ENGINE_VERSION,
	.size = sizeof(host),
	.complete = queue_complete,
	.sqe = queue_sqe,
	.poll = queue_poll,
	.log = host_log,
	.who_has = holders_describe,
	.fixed = queue_fixed,
};

const struct ublkzc_host *ublkzc_host = &host;
