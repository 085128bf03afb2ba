/* SPDX-License-Identifier: MIT */
/*
 * link.h - a connection in the hands of its queue: commands out, replies in.
 *
 * A request is one command, or one for each piece of memory that its data is in.  libnbd calls
 * back when a command is done, in the middle of its own work, where it must not be called; so what
 * is done joins a list, for queue.c to look at afterwards.
 *
 * Queue thread.
 */
#ifndef UBLKZC_NBD_LINK_H
#define UBLKZC_NBD_LINK_H

#include <libnbd.h>

#include "disk.h"

struct link;

/* A request, from submit() until it is completed. */
struct op {
	struct ublkzc_request *rq;
	struct op *next;     /* of the queue's list that it is in */
	struct link *link;   /* has it; or had it last */
	unsigned int pieces; /* commands that are under way */
	int error;	     /* 0 or a negative errno, of the first that failed */
	bool flushing;	     /* a write is done, and now made stable by a flush */
	uint64_t covers;     /* FLUSH: cache_covers() */
	time_t began;	     /* seconds; when it was given to the link */
};

struct op_list {
	struct op *first, **end;
};

struct link {
	struct ublkzc_queue *io;
	struct disk *disk;
	struct slot *slot;
	struct op_list *done;	   /* the queue's */
	struct nbd_handle *handle; /* NULL: there is none */
	int fd;
	uint64_t size;
	unsigned int in_flight;	  /* ops that it has, done ones that were not looked at too */
	unsigned int commands;	  /* that libnbd has */
	long long taken;	  /* bytes of the replies that were taken; or more, never less */
	bool armed_in, armed_out; /* is polled */
	bool tls;
	bool retiring;	  /* takes no more; ends when nothing is in flight */
	bool server_ends; /* because the server is about to end, it said */
};

void op_append(struct op_list *list, struct op *op);
struct op *op_take(struct op_list *list);

/* The slot's new handle. */
void link_up(struct link *l);

/* Begin @op on it.  The link may be down after that, and @op then is done as all others of it are.
 */
void link_send(struct link *l, struct op *op);

/* Its socket can perhaps be read, or written (@out): do what can be done.  May be down after that.
 */
void link_pump(struct link *l, bool out);

/* It has no handle any more; what was under way was given to the list before. */
void link_drop(struct link *l);

/* Nothing is under way: take leave of the server. */
void link_retire(struct link *l);

#endif
