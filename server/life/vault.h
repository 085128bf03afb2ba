/* SPDX-License-Identifier: MIT */
/*
 * vault.h - what must outlive the serving process, and how it gets out of it.
 *
 * A small parent, the keeper (keeper.h), holds one record for each thing that a
 * successor needs, with its descriptor where it has one: a client's connection,
 * a registered buffer's memory, the backing file.  The serving process tells it
 * of every change *before* it acts on it, in one message each, so that
 * whenever it is killed the records say what it had begun.  Messages that it
 * sent are delivered even if it dies at once.
 *
 * All on the control thread.  Without a keeper (no vault, --recovery none, or it
 * was killed) everything here does nothing.
 */
#ifndef UBLKZC_SERVER_VAULT_H
#define UBLKZC_SERVER_VAULT_H

#include <stdbool.h>
#include <stdint.h>

/* Of the records: a keeper starts a successor of another program version only
 * if that understands them. */
#ifndef VAULT_VERSION /* tests build a program of another version: tests/faults */
#define VAULT_VERSION 4
#endif

enum vault_kind {
	VAULT_STATE = 1,     /* descriptor: the state file */
	VAULT_BACKING,	     /* the target's storage */
	VAULT_SOCKET,	     /* the listening sockets */
	VAULT_LEGACY_SOCKET, /* ... of the older protocol */
	VAULT_CLIENT,	     /* the connection, or the pidfd of a legacy lease */
	VAULT_ATTACHED,	     /* the pidfd of a process that is attached */
	VAULT_BUFFER,	     /* none: what is registered of a file */
	VAULT_USE,	     /* none: who wants what of a file */
	VAULT_FILE,	     /* memory */
	VAULT_LOCK,	     /* the device's lock: lock.h */
	VAULT_KINDS,	     /* one more than the last */
};

/* What the driver was last known to do with a buffer. */
enum vault_buffer_state {
	VAULT_REGISTERING,   /* asked; it may have an index, or none */
	VAULT_LIVE,	     /* has the index */
	VAULT_UNREGISTERING, /* asked; the index may be free again */
};

struct vault_record {
	uint64_t id; /* unique, growing; 0: none yet */
	uint32_t kind;
	uint32_t pad;
	union {
		struct {
			uint32_t number; /* N of /dev/ublkbN */
		} state;
		struct {
			int32_t pid;
			uint32_t uid;
			uint8_t legacy;	   /* bool: came by the older protocol */
			uint8_t lease;	   /* bool: the descriptor is its pidfd */
			uint8_t scans;	   /* bool: SCAN was asked for */
			uint8_t may_write; /* bool: proved with a descriptor for writing */
			uint8_t greeted;   /* bool: has said HELLO */
			uint8_t asks;	   /* enum wire_type of what is not answered; 0: none */
			uint8_t pad[2];
			uint32_t seq; /* of that */
		} client;
		struct {
			int32_t root; /* of its attachment */
			int32_t pid;
		} attached;
		struct {
			uint64_t file;	      /* id */
			uint64_t offset, len; /* bytes */
			uint32_t index;	      /* LIVE and UNREGISTERING */
			uint8_t state;	      /* enum vault_buffer_state */
			uint8_t read_only;
			uint8_t pad[2];
		} buffer;
		struct {
			uint64_t file, client; /* ids; client 0: the server itself */
			uint64_t offset, len;  /* bytes */
			uint32_t seq;	       /* of the ADD */
			uint32_t number;       /* what the client calls it */
			uint8_t read_only;
			uint8_t pad[7];
		} use;
		struct {
			int32_t status;	 /* 0 or a negative errno */
			uint32_t reason; /* enum wire_reason */
		} outcome;
		struct {
			uint8_t suspect; /* bool: a server died while it was registered */
		} file;
	};
};

enum vault_op {
	VAULT_PUT,   /* a new record, or new contents of an old one */
	VAULT_DROP,  /* record.id is no more */
	VAULT_READY, /* the device is live: record.state.number */
	VAULT_END,   /* keeper to successor: that was all */
	/* An upgrade.  The server: try the installed program. */
	VAULT_TRY,
	/* The server, before it ends: what was tried is to be its successor. */
	VAULT_LEAVE,
	/* The keeper, in record.outcome: what came of TRY. */
	VAULT_TRIED,
	/*
	 * The keeper, in record.outcome, to whoever serves then: what came of an upgrade that was
	 * begun, be it that the server died first.
	 */
	VAULT_OUTCOME,
};

struct vault_message {
	uint32_t version; /* VAULT_VERSION */
	uint32_t op;
	struct vault_record record;
};

struct vault {
	int fd; /* to the keeper; -1: none */
	uint64_t last_id;
	bool lost; /* the keeper went away */
};

#define VAULT_NONE ((struct vault){ .fd = -1 })

/* Record @r and, unless -1, @fd (borrowed).  A record without an id gets one. */
void vault_put(struct vault *v, struct vault_record *r, int fd);

/*
 * Go on without the keeper, because of @err, and say so.  Not before it knows that, or is dead: one
 * that lacks a record must not start a successor.
 */
void vault_lose(struct vault *v, int err);

void vault_drop(struct vault *v, uint64_t id);

/* The device @number is live. */
void vault_ready(struct vault *v, unsigned int number);

/* Ask the keeper to try the installed program; tell it that this server ends for it. */
void vault_try(struct vault *v);
void vault_leave(struct vault *v);

/* What the keeper says: VAULT_TRIED or VAULT_OUTCOME with the outcome; 0 when it is gone. */
int vault_hear(struct vault *v, struct vault_record *ret);

/*
 * The next record that a predecessor left, in order of age.  1, with its
 * descriptor (the caller's) or -1; 0 when there are no more; -EPROTO.
 */
int vault_next(struct vault *v, struct vault_record *ret, int *ret_fd);

void vault_close(struct vault *v);

/* Both ends: 0 or a negative errno; 1 for a message, 0 for the end, or -EPROTO. */
int vault_send(int sock, enum vault_op op, const struct vault_record *r, int fd);
int vault_receive(int sock, struct vault_message *ret, int *ret_fd);

#endif
