/* SPDX-License-Identifier: MIT */
/* session_internal.h - a session, for the files session*.c. */
#ifndef UBLKZC_PRELOAD_SESSION_INTERNAL_H
#define UBLKZC_PRELOAD_SESSION_INTERNAL_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "session.h"

struct wire_reply;

#define INDEX_PENDING (-1) /* an answer is to come, and worth waiting for */
#define INDEX_LATE (-2)	   /* an answer is to come, and was waited for already */
#define INDEX_NONE (-3)	   /* refused, or the server's own affair */

struct session {
	bool used;
	bool live;
	bool legacy;
	bool hints;    /* it takes WIRE_RESIDENT */
	bool no_scans; /* it declines WIRE_SCAN */
	bool late;     /* it did not answer in time, and is not waited for until it does */
	unsigned int device;
	int fd; /* live and not legacy: the connection */
	dev_t dev;
	ino_t ino;
	uint32_t seq;
	uint32_t hello_seq;   /* of the HELLO whose answer is to come; 0: none */
	uint32_t scan_seq;    /* of the SCAN whose answer is to come; 0: none */
	unsigned int scanned; /* shared_generation() that the server knows */
	long long retry_at;   /* not live: when to try again, ms */
	long long again_at;   /* ms: when something that had grown was last offered again */
	unsigned int again_free;
	struct handed {
		uint64_t id;	 /* of the arena that was in this slot; 0: none sent */
		uint32_t seq;	 /* of its ADD */
		int index;	 /* what the server called it, or INDEX_* */
		bool again;	 /* it was sent before, and counted then */
		size_t resident; /* bytes of it that existed then */
	} sent[ARENAS_MAX];
};

extern atomic_bool session_missed;

/* session_connect.c: connect, and have the HELLO answered; @proof is open on the disk. */
void session_establish(struct session *s, int proof);
/* Is it there?  Takes the answers that have come, and waits for none. */
bool session_usable(struct session *s);
/* The server is gone, or has answered. */
void session_lose(struct session *s);
void session_note_reply(struct session *s, const struct wire_reply *reply);
/* In a forked child. */
void session_none_live(void);

/* session_offer.c: what is no more is taken back, what is new is offered; nothing is waited for. */
void session_reconcile(struct session *s);

/* The same, also what the program itself shares, and the answers are waited for. */
void session_hand_over_all(struct session *s);

/* More of an arena exists than when it was sent: the server need not find out. */
void session_send_resident(struct session *s, const struct arena *a);

#endif
