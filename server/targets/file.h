/* SPDX-License-Identifier: MIT */
/* file.h - file I/O on target->fd, for every engine that has one. */
#ifndef UBLKZC_SERVER_TARGETS_FILE_H
#define UBLKZC_SERVER_TARGETS_FILE_H

#include <ublkzc/engine.h>

void file_submit(struct ublkzc_request *rq);
void file_cqe(struct ublkzc_request *rq, int res);
void file_close(struct ublkzc_target *target);

#endif
