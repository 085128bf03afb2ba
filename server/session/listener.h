/* SPDX-License-Identifier: MIT */
/*
 * listener.h - the sockets of a device and the clients behind them.
 *
 * Runs on the control thread.  Nothing here blocks: a client that sends
 * nothing, reads nothing or sends nonsense holds up only itself.
 *
 * Two sockets: /run/ublkzc/ublkbN.sock, open to everybody, because HELLO
 * proves access (wire.h); and the older /run/ublk/ublkbN.sock (stream: one
 * byte and a memfd in, an int32 index out), for root only, because it proves
 * nothing.  A buffer that came by the older way is dropped when the process
 * that sent it is gone.
 */
#ifndef UBLKZC_SERVER_LISTENER_H
#define UBLKZC_SERVER_LISTENER_H

#include <stdint.h>

#include "server/memory/attach.h"
#include "server/memory/buffers.h"

/*
 * Limits; all can be set by options of ublkzc add.  Those of a user are for all its
 * clients together; root and the server's own user have none.
 */
struct listener_limits {
	unsigned int max_clients;      /* connections */
	unsigned int max_user_clients; /* connections of one user */
	unsigned int max_buffers;      /* per client: what ADD brings */
	uint64_t max_client_bytes;     /* per client */
	uint64_t max_user_bytes;       /* per user */
	unsigned int hello_timeout;    /* seconds to say HELLO */
};

#define LISTENER_HELLO_TIMEOUT 5

struct client;

struct listener {
	unsigned int device;
	struct listener_limits limits;
	struct buffers *buffers;
	int epoll;  /* watched by the caller */
	int socket; /* -1: none */
	int legacy; /* -1: none */
	unsigned int nr_clients;
	uint32_t numbered; /* clients until now */
	uint64_t refused;
	struct user *users;
	long deaf_until;     /* seconds: nobody is let in before; 0: all are */
	struct vault *vault; /* NULL: none */
	struct client *first;
	struct attachments attachments; /* made by listener_open() */
	/* Only memory that never faults is taken: sealed, and not on hugetlbfs.  SCAN and ATTACH
	 * are declined. */
	bool sealed_only;
	/* What root asks of the device; each gets host first. */
	void *host;
	/* Let the device grow to *@size bytes (0: as its target has); then, also
	 * when it did not, *@size is what it has.  NULL: it cannot. */
	int (*resize)(void *host, uint64_t *size, enum wire_reason *ret_reason);
	/* Remove the device and end.  NULL: it cannot. */
	void (*stop)(void *host);
	/* Hand over: 0, and listener_upgraded() follows, perhaps in a successor; or why not.
	 * NULL: it cannot. */
	int (*upgrade)(void *host, enum wire_reason *ret_reason);
	/* Does @fd prove access to the device?  0, or why not. */
	int (*judge_proof)(void *host, unsigned int device, int fd, enum wire_reason *ret_reason);
};

/*
 * Create the sockets below @dir and @legacy_dir (NULL: no such socket), unless
 * l->socket and l->legacy are a predecessor's (else they must be -1).
 */
int listener_open(struct listener *l, const char *dir, const char *legacy_dir);

/* epoll says something is to be done, or a second has passed. */
void listener_run(struct listener *l);

/*
 * What a predecessor left: its clients and attached processes, by their
 * records.  @fd is the listener's afterwards.  Who cannot be taken over is hung up on, and
 * copied.
 */
void listener_restore(struct listener *l, const struct vault_record *r, int fd);

/* The client with that id in the vault; NULL: it is gone. */
struct client *listener_find(const struct listener *l, uint64_t id);

/* A restored client wants restored memory: who pays for it. */
struct account *listener_restore_use(struct client *c);

/* The device has resumed: look at shared memory as the predecessor did. */
void listener_resume(struct listener *l);

/* Has somebody asked for an upgrade, perhaps a predecessor, and is not answered yet? */
bool listener_awaits_upgrade(const struct listener *l);

/* The answer to everybody who asked for an upgrade. */
void listener_upgraded(struct listener *l, int status, enum wire_reason reason);

/*
 * A successor is to have the clients: also those who have not said HELLO, and what is not
 * answered yet.  The vault has the rest already.
 */
void listener_leave(struct listener *l);

/* Answers of buffers go through this. */
buffers_answer_fn listener_answer;

/* Hang up on everybody. */
void listener_close(struct listener *l);

/* The rule of wire.h: open, not O_PATH, on a file or device on our disk. */
int listener_judge_proof(void *host, unsigned int device, int fd, enum wire_reason *ret_reason);

#endif
