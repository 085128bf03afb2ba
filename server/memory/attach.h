/* SPDX-License-Identifier: MIT */
/*
 * attach.h - programs that run without libublkzc.so (ublkzc attach).
 *
 * An attachment follows one process and what it forks: each second it looks for
 * children and for processes that have ended, and now and then at the shared
 * memory of all of them (scan.h), on a thread of theirs.  It ends when all have ended, or
 * by detach.
 * A child whose parent ends before the next look is not found.
 */
#ifndef UBLKZC_SERVER_ATTACH_H
#define UBLKZC_SERVER_ATTACH_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "scan.h"

#define ATTACH_PROCESSES_MAX 4096U /* followed by one attachment */
#define ATTACH_MAX 64U		   /* attachments of one device */
#define ATTACH_LOOK_SECONDS 10	   /* between looks at all shared memory */

struct attachment;

struct attachments {
	struct buffers *buffers;
	uint64_t max_bytes; /* for each */
	unsigned int nr;
	struct vault *vault; /* NULL: none */
	struct attachment *first;
	time_t next_tick;
	/* The first look is done: @asker as given to attach_add(). */
	void (*attached)(void *arg, void *asker, uint32_t seq, pid_t pid);
	void *arg;
};

/* What an attachment has: reply fields of wire.h. */
struct attach_info {
	pid_t pid;
	unsigned int processes;
	unsigned int buffers;
	uint64_t bytes;
	unsigned int refused;
	enum wire_reason why; /* of the last refusal */
};

/*
 * 0: attached() will be called, perhaps at once.  -ESRCH, -ENOMEM, -EUSERS
 * (ATTACH_MAX).  A process that is attached already is looked at again.
 */
int attach_add(struct attachments *a, pid_t pid, void *asker, uint32_t seq);

/* -ENOENT: it is not attached. */
int attach_remove(struct attachments *a, pid_t pid);

/* Number @nr in the list, or that of @pid; -ENOENT: there is none. */
int attach_get(const struct attachments *a, unsigned int nr, struct attach_info *ret);
int attach_find(const struct attachments *a, pid_t pid, struct attach_info *ret);

/* One process that a predecessor had attached; @pidfd is ours afterwards. */
int attach_restore(struct attachments *a, const struct vault_record *r, int pidfd);

/* Look at all memory of all processes now. */
void attach_look_again(struct attachments *a);

/* Call once a second or more often. */
void attach_tick(struct attachments *a, time_t now);

/* @asker is gone: nothing is to be told to it. */
void attach_forget_asker(struct attachments *a, const void *asker);

void attach_close(struct attachments *a);

#endif
