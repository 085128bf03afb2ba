/* SPDX-License-Identifier: MIT */
/*
 * rescue.h - code that touches clients' memory never meets a SIGBUS.
 *
 * A client can truncate memory that it shares, or punch holes into it, and then a load or
 * store of ours has no page to go to: the kernel sends SIGBUS, which ends the server.  What
 * goes through system calls only sees EFAULT.  For an engine whose own code touches the bytes
 * (UBLKZC_TOUCHES_DATA) the handler puts private memory where the mapping was, so that the code
 * goes on with zeroes; and because then nothing that it did counts, the mapping is first
 * withdrawn from the registry and registry_rescues() goes up: queue threads see that,
 * and do their requests again with copies.
 *
 * The pages that the driver has pinned are another matter, and not touched by this.
 */
#ifndef UBLKZC_SERVER_MEMORY_RESCUE_H
#define UBLKZC_SERVER_MEMORY_RESCUE_H

#include "registry.h"

/* From now on, for what is published in @r.  One registry of a process.  0 or -errno. */
int rescue_open(struct registry *r);

#endif
