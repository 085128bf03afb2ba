/* SPDX-License-Identifier: MIT */
/*
 * leave.c - the end of a slice.
 *
 * The driver has said that no request uses it, and the registry shows it to nobody.  But a
 * queue's ring may have its pages pinned (queue/fixed.h), and must let go before the mapping
 * and the memory are given back: else its entry would be of an address that is something else's.
 * The slice is paid for until then, because so long its pages are held.
 */
#include "buffers_internal.h"

void slice_leave(struct buffers *b, struct slice *s)
{
	if (!s->view.base || !b->backend.recall || !b->backend.recall(b->backend.arg)) {
		slice_free(b, s);
		return;
	}
	s->state = LEAVING;
	s->index = UINT32_MAX; /* it is free for another */
	s->withdrawal = registry_withdrawals(b->registry);
	/* A successor has queues of its own, which never had it. */
	vault_drop(b->vault, s->id);
	s->id = 0;
	slice_queue_append(&b->leaving, s);
}

void buffers_let_go(struct buffers *b, uint64_t withdrawals)
{
	while (b->leaving.first && b->leaving.first->withdrawal <= withdrawals) {
		struct slice *s = slice_queue_take(&b->leaving);
		struct file *file = s->file;

		slice_free(b, s);
		buffers_put_file(b, file);
	}
}
