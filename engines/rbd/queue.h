/* SPDX-License-Identifier: MIT */
/* queue.h - a request: from a hardware queue to librbd, and back. */
#ifndef UBLKZC_RBD_QUEUE_H
#define UBLKZC_RBD_QUEUE_H

#include <ublkzc/engine.h>

/* As engine.h has it.  Queue thread. */
void rbd_engine_submit(struct ublkzc_request *rq);

#endif
