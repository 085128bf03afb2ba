/* SPDX-License-Identifier: MIT */
/*
 * old_peer.h - what the other side understood before servers said WIRE_FEATURE_DECLINES.
 *
 * Packages are upgraded one after the other, and processes live longer than packages: so an
 * older shim must get on with this server, and this shim with an older server.  Here is how
 * those judged a message, written once from their source and not to be touched again: it knows
 * bytes and numbers only, so that no change to common/wire.h moves it.  tests/older runs the
 * real ones.
 */
#ifndef UBLKZC_TESTS_UNIT_COMMON_OLD_PEER_H
#define UBLKZC_TESTS_UNIT_COMMON_OLD_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OLD_LAST_TYPE 12 /* RESIDENT */

/* 0, or the reason for which such a server would have hung up on its client. */
unsigned int old_server_refuses(const uint8_t *bytes, size_t len, unsigned int nr_fds);

/* Would such a shim have read this reply?  Else it ends the session. */
bool old_shim_reads(const uint8_t *bytes, size_t len);

#endif
