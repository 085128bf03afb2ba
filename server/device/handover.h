/* SPDX-License-Identifier: MIT */
/*
 * handover.h - end so that nothing is lost: ublkzc upgrade.
 *
 *         asked            the keeper: it works        nothing is asked of the driver
 *   NONE -------> TRYING ---------------------> EBBING ------------------------------> gone
 *     ^              | it does not                 | not after HANDOVER_MS
 *     +--------------+-----------------------------+
 *
 * A stock driver that is asked to register or unregister memory waits for the requests of
 * the device; a server that is killed meanwhile leaves it waiting for ever.  So a server that
 * hands over asks for nothing more, waits for what it has asked, and only then ends.  What
 * clients want meanwhile is recorded, and is the successor's.
 */
#ifndef UBLKZC_SERVER_HANDOVER_H
#define UBLKZC_SERVER_HANDOVER_H

#include "common/wire.h"

struct device;

#define HANDOVER_MS 30000 /* for what the driver has been asked */

struct handover {
	enum handover_state { HANDOVER_NONE, HANDOVER_TRYING, HANDOVER_EBBING } state;
	long long deadline; /* ms; EBBING */
};

/* A listener's upgrade; @host is the device. */
int handover_asked(void *host, enum wire_reason *ret_reason);

/* The keeper has said something, or is gone. */
void handover_hear(struct device *d);

/* Once a round.  Ends the process when all is handed over. */
void handover_go_on(struct device *d);

#endif
