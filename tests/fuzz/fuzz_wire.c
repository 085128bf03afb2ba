/* SPDX-License-Identifier: MIT */
/* Any bytes, any number of descriptors: the decoder accepts what is right, and only that. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_request(const uint8_t *data, size_t size, unsigned int nr_fds)
{
	struct wire_request req;
	enum wire_reason reason;

	if (wire_request_decode(data, size, nr_fds, &req, &reason)) {
		if (reason == WIRE_OK || reason >= WIRE_REASONS || !wire_reason_text(reason)[0])
			abort();
		return;
	}
	/* What is accepted is the message, and has no bits that nobody looked at. */
	if (size != sizeof(req) || memcmp(&req, data, size) != 0 || req.magic != WIRE_MAGIC ||
	    req.version != WIRE_VERSION || req.type < WIRE_HELLO || req.type >= WIRE_TYPES ||
	    nr_fds != (req.type <= WIRE_ADD) || (req.flags & ~WIRE_ADD_READ_ONLY))
		abort();
	for (unsigned int i = 0; i < sizeof(req.reserved); i++)
		if (req.reserved[i])
			abort();
}

static void check_reply(const uint8_t *data, size_t size)
{
	struct wire_reply reply;

	if (wire_reply_decode(data, size, &reply))
		return;
	if (size != sizeof(reply) || reply.status > 0 || !wire_reason_text(reply.reason)[0])
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	check_request(data + 1, size - 1, data[0] % 4);
	check_reply(data + 1, size - 1);
	return 0;
}
