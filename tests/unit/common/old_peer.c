/* SPDX-License-Identifier: MIT */
/* old_peer.c - see old_peer.h. */
#include "old_peer.h"

enum {
	HELLO = 1,
	ADD,
	REMOVE,
	PING,
	SCAN,
	ATTACH,
	DETACH,
	ATTACHED,
	RESIZE,
	STOP,
	UPGRADE,
	RESIDENT
};

static uint64_t number(const uint8_t *bytes, size_t at, unsigned int size)
{
	uint64_t n = 0;

	while (size--)
		n = n << 8 | bytes[at + size];
	return n;
}

/* What each type used, by offset in the record; all else was to be zero. */
static bool uses(unsigned int type, size_t at)
{
	if (at < 12)
		return true; /* magic, version, type, seq */
	if (at < 16)
		return type == ADD; /* flags */
	if (at < 24)
		return type == ADD || type == RESIDENT; /* offset */
	if (at < 32)
		return type == ADD || type == RESIDENT || type == RESIZE; /* length */
	if (at < 36)
		return type == REMOVE || type == ATTACHED || type == RESIDENT; /* index */
	if (at < 40)
		return type == HELLO || type == ATTACH || type == DETACH; /* pid */
	return false;
}

unsigned int old_server_refuses(const uint8_t *bytes, size_t len, unsigned int nr_fds)
{
	unsigned int type;

	if (len != 64 || number(bytes, 0, 4) != 0x315a4355)
		return 1;
	if (number(bytes, 4, 2) != 1)
		return 2;
	type = (unsigned int)number(bytes, 6, 2);
	if (type < HELLO || type > OLD_LAST_TYPE)
		return 1;
	for (size_t at = 0; at < len; at++)
		if (bytes[at] && !uses(type, at))
			return 1;
	if (number(bytes, 12, 4) > 1)
		return 1;
	return nr_fds == (type == HELLO || type == ADD) ? 0 : 3;
}

bool old_shim_reads(const uint8_t *bytes, size_t len)
{
	return len == 64 && number(bytes, 0, 4) == 0x315a4355 &&
	       (int32_t)number(bytes, 12, 4) <= 0 && number(bytes, 16, 2) <= 32;
}
