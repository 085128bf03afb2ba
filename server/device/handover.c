/* SPDX-License-Identifier: MIT */
/* handover.c - see handover.h. */
#include "handover.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/fault.h"
#include "device_internal.h"

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* This server goes on. */
static void give_up(struct device *d, int status, enum wire_reason reason)
{
	log_line(LOG_ERROR, "device %u is not handed over: %s", d->info.dev_id,
		 wire_reason_text(reason));
	if (d->handover.state == HANDOVER_EBBING)
		buffers_pause(&d->buffers, false);
	d->handover.state = HANDOVER_NONE;
	listener_upgraded(&d->listener, status, reason);
}

int handover_asked(void *host, enum wire_reason *ret_reason)
{
	struct device *d = host;

	*ret_reason = WIRE_UPGRADING;
	/* Who waits for the end of one that made us the server is not to hear of another. */
	if (d->handover.state != HANDOVER_NONE || listener_awaits_upgrade(&d->listener))
		return -EBUSY;
	*ret_reason = WIRE_NO_KEEPER;
	vault_try(d->vault);
	if (d->vault->fd < 0)
		return -ESRCH;
	d->handover.state = HANDOVER_TRYING;
	return 0;
}

static void ebb(struct device *d)
{
	d->handover.state = HANDOVER_EBBING;
	d->handover.deadline = now_ms() + HANDOVER_MS;
	buffers_pause(&d->buffers, true);
	FAULT_POINT("ebbing");
}

/* Also those who wait for the end of an upgrade that made us the server. */
static void lose_keeper(struct device *d)
{
	d->state->keeper = 0; /* nobody is */
	if (d->handover.state != HANDOVER_NONE)
		give_up(d, -ESRCH, WIRE_NO_KEEPER);
	else
		listener_upgraded(&d->listener, -ESRCH, WIRE_NO_KEEPER);
}

void handover_hear(struct device *d)
{
	struct vault_record r;
	int op = vault_hear(d->vault, &r);

	if (op == VAULT_OUTCOME) {
		/* Who is being served by TRIED has not asked for that one. */
		if (d->handover.state == HANDOVER_NONE)
			listener_upgraded(&d->listener, r.outcome.status, r.outcome.reason);
	} else if (op == VAULT_TRIED && d->handover.state == HANDOVER_TRYING) {
		if (r.outcome.status)
			give_up(d, r.outcome.status, r.outcome.reason);
		else
			ebb(d);
	}
}

void handover_go_on(struct device *d)
{
	if (d->vault->lost && d->state->keeper)
		lose_keeper(d);
	if (d->handover.state != HANDOVER_EBBING)
		return;
	if (!buffers_idle(&d->buffers)) {
		if (now_ms() >= d->handover.deadline)
			give_up(d, -ETIMEDOUT, WIRE_COMMANDS_PENDING);
		return;
	}
	listener_leave(&d->listener);
	vault_leave(d->vault);
	if (d->vault->fd < 0) {
		give_up(d, -ESRCH, WIRE_NO_KEEPER);
		return;
	}
	FAULT_POINT("leaving");
	/* As it is: I/O in flight is the successor's, and the records say everything else. */
	_exit(EXIT_SUCCESS);
}
