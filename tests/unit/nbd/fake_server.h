/* SPDX-License-Identifier: MIT */
/*
 * fake_server.h - an NBD server on a unix socket, in threads of the test, that does what it is told
 * to: well, late, wrongly, not at all.  What is written is in its cache until a flush, and gone
 * when it loses power.
 */
#ifndef UBLKZC_TESTS_FAKE_SERVER_H
#define UBLKZC_TESTS_FAKE_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#define FAKE_MAX (1U << 20) /* bytes that it can have */

/* Flags of the export, as in the protocol. */
#define FAKE_READ_ONLY (1U << 1)
#define FAKE_FLUSH (1U << 2)
#define FAKE_FUA (1U << 3)
#define FAKE_ROTATIONAL (1U << 4)
#define FAKE_TRIM (1U << 5)
#define FAKE_ZERO (1U << 6)
#define FAKE_MULTI_CONN (1U << 8)
#define FAKE_ALL (FAKE_FLUSH | FAKE_FUA | FAKE_TRIM | FAKE_ZERO | FAKE_MULTI_CONN)

/* What happens to the next command, once. */
enum fake_trick {
	FAKE_NONE,
	FAKE_ERROR,	   /* it fails with fake.error, the protocol's number */
	FAKE_NONSENSE,	   /* the reply does not begin as one */
	FAKE_STRANGER,	   /* the reply is to something that was not asked */
	FAKE_CUT_BEFORE,   /* the connection is closed, and nothing was done */
	FAKE_CUT_AFTER,	   /* it was done */
	FAKE_CUT_IN_REPLY, /* and half of the reply is sent */
	FAKE_STRUCTURED,   /* the reply is in pieces, which nobody agreed to */
	FAKE_TWICE,	   /* the reply is sent a second time */
	FAKE_TRICKLE,	   /* the reply comes byte by byte, for a while */
	FAKE_SILENT,	   /* it is done and answered after fake_answer() or the client's end */
};

struct fake_options {
	uint64_t size;
	unsigned int flags;
	uint32_t minimum, preferred, maximum; /* 0: says nothing of blocks */
	enum { FAKE_POLITE, FAKE_GIBBERISH, FAKE_HANGS_UP } greeting;
	bool backwards; /* takes what is there, and answers the last first */
};

void fake_start(const char *path, const struct fake_options *options);

/* All connections end, and nobody listens.  With @power_cut what was not flushed is lost. */
void fake_stop(bool power_cut);

/* Again, with other options. */
void fake_restart(const struct fake_options *options);

void fake_trick(enum fake_trick trick);
extern uint32_t fake_error;

/* Do and answer what FAKE_SILENT holds back. */
void fake_answer(void);

/* Commands since the beginning; connections; bytes that are in it. */
unsigned int fake_count(unsigned int command);
unsigned int fake_connections(void);
const uint8_t *fake_bytes(void);

/* Flags of the last command. */
unsigned int fake_last_flags(void);

#endif
