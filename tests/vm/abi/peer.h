/* SPDX-License-Identifier: MIT */
/*
 * peer.h - a process that uses the disk and knows nothing of the server, for tests of foreign
 * memory.  It does what it is told, one thing at a time; reads and writes may go on meanwhile.
 */
#ifndef UBLKZC_TESTS_ABI_PEER_H
#define UBLKZC_TESTS_ABI_PEER_H

#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "abi_helpers.h"

enum peer_op {
	PEER_MAP,  /* @len bytes of private memory, and touch them: @mem */
	PEER_OPEN, /* the disk, whose number @at is */
	PEER_CLOSE,
	PEER_FILL, /* with @value */
	PEER_SAME, /* result: do all bytes have @value? */
	PEER_READ, /* from @disk_at into memory; bytes, or an errno */
	PEER_WRITE,
	PEER_BEGIN_READ, /* the same, going on while other things are done */
	PEER_END_READ,
	PEER_DISCARD, /* MADV_DONTNEED */
	PEER_UNMAP,
	PEER_MOVE,	 /* mremap() elsewhere: @mem */
	PEER_PROTECT,	 /* read-only, and back again */
	PEER_FORK,	 /* a child that waits */
	PEER_CHILD_SAME, /* as PEER_SAME, in that child's memory */
	PEER_CHILD_FILL,
	PEER_END_CHILD,
	PEER_EXEC,	 /* sleep */
	PEER_TOUCH,	 /* write @value to one byte of each page */
	PEER_BREAK_HUGE, /* MADV_NOHUGEPAGE for what is mapped from now on */
};

/* In memory that both share. */
struct peer {
	sem_t go, done;
	pid_t pid; /* 0: it has ended, and been waited for */
	enum peer_op op;
	size_t at, len; /* in the peer's memory */
	off_t disk_at;	/* at first the beginning of the tests' part of the disk */
	uint8_t value;
	long result;
	uint8_t *mem; /* in the peer */
	struct {
		sem_t go, done;
		enum peer_op op;
		long result;
	} child;
};

/* Before anything of the server is there, which the peer must not have open. */
struct peer *peer_start(void);
/* It is killed, if it has not ended. */
void peer_end(struct peer *p);

long peer_do(struct peer *p, enum peer_op op, size_t at, size_t len);
long peer_with(struct peer *p, enum peer_op op, size_t at, size_t len, uint8_t value);
/* An operation that never comes back. */
void peer_leave(struct peer *p, enum peer_op op);

#endif
