/* SPDX-License-Identifier: MIT */
/* target_file.h - file I/O on target->fd, for every target that has one. */
#ifndef UBLKZC_SERVER_TARGET_FILE_H
#define UBLKZC_SERVER_TARGET_FILE_H

#include "server/queue/queue.h"
#include "server/queue/target.h"

void target_file_submit(struct queue *q, struct request *rq);
void target_file_cqe(struct queue *q, struct request *rq, int res);
void target_file_close(struct target *target);

#endif
