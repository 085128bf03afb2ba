/* SPDX-License-Identifier: MIT */
/* talk.h - a connection to a server, and what it answers. */
#ifndef UBLKZC_PRELOAD_TALK_H
#define UBLKZC_PRELOAD_TALK_H

#include "common/wire.h"

/*
 * To /dev/ublkb@device's socket below @dir; @type as in socket(2).  While others queue up
 * there it waits for its turn until @deadline (ms, sys_now_ms()).  A non-blocking
 * descriptor with a high number, or a negative errno; -EAGAIN: its turn has not come.
 */
int talk_connect(const char *dir, unsigned int device, int type, long long deadline);

/* A reply before @deadline (ms, sys_now_ms()).  0, -ETIMEDOUT, or the
 * connection's end: another negative errno. */
int talk_read_reply(int fd, long long deadline, struct wire_reply *ret);

#endif
