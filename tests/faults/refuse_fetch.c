/* SPDX-License-Identifier: MIT */
/*
 * refuse_fetch.c - preloaded into a server: the driver refuses one of its FETCH commands.
 *
 * The tag of the last one is made one that no queue has.  What the driver then does, and how
 * it tells, is its own.
 */
#include <dlfcn.h>
#include <liburing.h>

#include "common/uapi.h"

__attribute__((visibility("default"))) int io_uring_submit(struct io_uring *ring)
{
	int (*real)(struct io_uring *) =
		(int (*)(struct io_uring *))(uintptr_t)dlsym(RTLD_NEXT, "io_uring_submit");
	struct io_uring_sqe *last = NULL;

	for (unsigned int i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
		struct io_uring_sqe *sqe = &ring->sq.sqes[i & (*ring->sq.kring_entries - 1)];

		if (!(ring->flags & IORING_SETUP_SQE128) && sqe->opcode == IORING_OP_URING_CMD &&
		    sqe->off == UBLK_U_IO_FETCH_REQ)
			last = sqe;
	}
	if (last)
		((struct ublksrv_io_cmd *)&last->addr3)->tag = UINT16_MAX;
	return real(ring);
}
