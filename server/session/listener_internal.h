/* SPDX-License-Identifier: MIT */
/* listener_internal.h - a client, for listener.c and the protocols beside it. */
#ifndef UBLKZC_SERVER_LISTENER_INTERNAL_H
#define UBLKZC_SERVER_LISTENER_INTERNAL_H

#include <sys/socket.h>
#include <time.h>

#include "server/memory/scan.h"
#include "listener.h"

struct client {
	struct client *next;
	int fd; /* the connection, or a pidfd once a legacy request is done */
	bool legacy;
	bool greeted;		   /* HELLO accepted */
	bool may_write;		   /* its proof was open for writing */
	bool closing;		   /* to be freed when the current round is over */
	bool legacy_lease;	   /* fd is a pidfd */
	time_t deadline;	   /* for HELLO, CLOCK_MONOTONIC seconds */
	pid_t pid;		   /* SO_PEERCRED, for logs, scans and the legacy lease */
	uid_t uid;		   /* SO_PEERCRED */
	int pidfd;		   /* of pid; -1: no scans */
	struct listener *listener; /* for answers to SCAN */
	struct scan scan;	   /* of what it shares itself */
	uint32_t scan_seq;	   /* of the SCAN to answer */
	bool scan_asked;
	bool scans;	    /* it has sent SCAN at all */
	bool attaching;	    /* ATTACH is not answered, and no successor would */
	bool upgrade_asked; /* UPGRADE is not answered */
	uint32_t upgrade_seq;
	bool asks_noted; /* the vault knows of what is not answered */
	struct user *user;
	struct account account; /* pays for what ADD brings */
	unsigned int nr_buffers;
	uint32_t number;      /* counted since the server began */
	uint32_t refused;     /* requests, or what a look found */
	enum wire_reason why; /* of the last refusal */
	uint64_t id;	      /* in the vault; 0: not there */
};

/* All clients of one user, and what it was allowed lately. */
struct user {
	struct user *next;
	uid_t uid;
	unsigned int nr_clients;
	struct account account;
};

/* To be freed when the current round is over. */
static inline void hang_up(struct client *c)
{
	c->closing = true;
}

/* A client with @fd as its connection, or NULL; @fd stays the caller's then. */
struct client *listener_new_client(struct listener *l, int fd, const struct ucred *cred);

/* Tell the vault of @c, and of @fd unless it is -1. */
void listener_note(struct listener *l, struct client *c, int fd);

/* What @c had asked is answered, by no successor as well. */
void listener_answered(struct listener *l, struct client *c);

/* Watch @fd for input; @what comes back from epoll. */
int listener_watch(struct listener *l, int fd, void *what);

/* The opposite; hangs up. */
void listener_disconnect(struct listener *l, struct client *c);

/* The next record of @c as from wire_recv_all(); or -EBUSY, and it should go. */
long listener_receive(struct listener *l, struct client *c, void *buf, size_t size,
		      struct wire_fds *ret_fds);

/* listener_judge.c: 0 or a negative errno and the reason. */
int listener_judge_memory(const struct buffer_request *req, enum wire_reason *ret_reason);
int listener_judge_budget(const struct listener *l, const struct client *c,
			  enum wire_reason *ret_reason);
int listener_judge_user(const struct listener *l, const struct client *c);
/* Say which limit @a has reached, if it has. */
void listener_say_limit(const struct listener *l, const struct client *c, const struct account *a);

/* listener_users.c: the user of @c, who pays with it; false: no memory. */
bool listener_join_user(struct listener *l, struct client *c);
void listener_leave_user(struct listener *l, struct client *c);
/* Forget users who have nothing, and could not get more by being forgotten. */
void listener_sweep_users(struct listener *l);
void listener_free_users(struct listener *l);

/*
 * May one more line be logged about what clients do?  They can do it for ever, and the log
 * is on a small file system: after LISTENER_LINES of a second no more of them.
 */
#define LISTENER_LINES 10
bool listener_may_say(void);

/* Judge and register memory that @c has sent; it counts against @c. */
int listener_add_memory(struct listener *l, struct client *c, const struct buffer_request *req,
			enum wire_reason *ret_reason);

void listener_reply(struct listener *l, struct client *c, const struct wire_reply *reply);
void listener_refuse(struct listener *l, struct client *c, const struct wire_request *req, int err,
		     enum wire_reason reason);

/* listener_legacy.c: the older one-byte protocol */
void legacy_serve(struct listener *l, struct client *c);
void legacy_answer(struct listener *l, struct client *c, int status, unsigned int index);

/* listener_scan.c: memory that processes share themselves */
int scan_again(struct listener *l, struct client *c);
void scan_requested(struct listener *l, struct client *c, const struct wire_request *req);

/* listener_admin.c: what root asks */
bool admin_requested(struct listener *l, struct client *c, const struct wire_request *req);
/* @c is answered by listener_upgraded() and has time until then. */
void listener_await_upgrade(struct client *c, uint32_t seq);
void listener_attached(void *arg, void *client, uint32_t seq, pid_t pid);

#endif
