/* SPDX-License-Identifier: MIT */
/* admin.h - a verb asks a running server: root's requests of common/wire.h. */
#ifndef UBLKZC_SERVER_ADMIN_H
#define UBLKZC_SERVER_ADMIN_H

#include "common/wire.h"

/*
 * Ask and wait for the answer.  0 when there is one, be it a refusal; else a
 * negative errno that was logged.
 */
int admin_ask(unsigned int device, const struct wire_request *req, struct wire_reply *ret);

#endif
