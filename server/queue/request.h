/* SPDX-License-Identifier: MIT */
/*
 * request.h - what a request asks for, and where its data is, before and after the target.
 *
 * For queue.c, on the queue's thread.
 */
#ifndef UBLKZC_SERVER_REQUEST_H
#define UBLKZC_SERVER_REQUEST_H

#include "queue.h"

/*
 * Fill in @rq from the driver's descriptor; its data is where the target can use it.  0; or a
 * negative errno that the request ends with.
 */
int request_begin(struct queue *q, struct request *rq, const struct ublksrv_io_desc *iod);

/*
 * Registered memory had no page where @rq's data is: a system call said so (@res is -EFAULT), or the
 * engine's code met a page that was put there for it (memory/rescue.h).  Its owner has taken
 * it out while the request was under way. The pages of the request are another matter, and the
 * driver has them: so it is to be done again, copied.  True: submit it again; else *@res is
 * what it ends with.
 */
bool request_copy_instead(struct queue *q, struct request *rq, int *res);

/*
 * The target is done with it, with @res: data that was read goes to where it belongs, and the
 * request is counted.  What it ends with: 0 or a negative errno.
 */
int request_finish(struct queue *q, struct request *rq, int res);

#endif
