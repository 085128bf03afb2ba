/* SPDX-License-Identifier: MIT */
/* queue.h - a hardware queue's requests: which connection has them, and what if there is none. */
#ifndef UBLKZC_NBD_QUEUE_H
#define UBLKZC_NBD_QUEUE_H

#include <ublkzc/engine.h>

/* As engine.h has them.  Queue thread. */
int nbd_queue_open(struct ublkzc_queue *io);
void nbd_queue_close(struct ublkzc_queue *io);
void nbd_submit(struct ublkzc_request *rq);
void nbd_ready(struct ublkzc_queue *io, int fd, int events);

#endif
