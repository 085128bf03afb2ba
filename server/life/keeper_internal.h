/* SPDX-License-Identifier: MIT */
/* keeper_internal.h - a keeper, for the files keeper*.c. */
#ifndef UBLKZC_SERVER_KEEPER_INTERNAL_H
#define UBLKZC_SERVER_KEEPER_INTERNAL_H

#include <search.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/wire.h"
#include "keeper.h"

/* Executables, as descriptors. */
struct programs {
	char installed[4096]; /* path */
	int good;	      /* has proved itself */
	int next;	      /* was tried, or is on probation; -1: none */
	bool probation;	      /* next serves */
	unsigned int deaths;  /* servers in a row that did not last */
	struct rehearsal {
		pid_t pid; /* 0: none */
		int sock;
	} rehearsal;
};

struct kept {
	struct vault_record record; /* first: compared by its id */
	int fd;			    /* -1: none */
	unsigned int slot;	    /* keeper_store.c; 0: none */
};

/* keeper_store.c */
struct store {
	int fd;		       /* what is kept; -1: the manager keeps nothing for us */
	unsigned int nr_slots; /* with the first, which has no record */
	unsigned int *free;
	unsigned int nr_free, free_room;
	struct store_task { /* the manager is still to be told */
		uint64_t id; /* 0: the records' memfd */
		bool forget;
	} *tasks;
	unsigned int nr_tasks, room;
};

struct keeper {
	const struct keeper_start *start;
	void *kept; /* struct kept, by id */
	struct store store;
	struct programs programs;
	char oom_score_adj[16];
	int signal_fd;
	int sock; /* to the server; -1: it has hung up */
	pid_t pid;
	int pidfd;
	long long started_at; /* ms, of this server */
	long long live_at;    /* 0: not yet */
	bool live;	      /* some server has been */
	bool told;	      /* whoever waits for that has been told */
	bool leaving;	      /* it has handed over */
	bool killed;	      /* by us: it was not live in time */
	enum wire_reason failed; /* an upgrade, for the next that is live to tell; WIRE_OK: none */
	bool stale;	      /* records are missing: a successor would serve wrong memory */
	unsigned int device;
	bool stopping;
	long long kill_at; /* ms; while stopping */
	unsigned int pause_ms;
};

long long keeper_now_ms(void);
/* To the server, if there is one. */
void keeper_signal(const struct keeper *k, int signal);

/* ---- keeper_spare.c ---- */

void keeper_spare(struct keeper *k);
/* In a child that is to become a server: as if the keeper had never been. */
void keeper_unspare(const struct keeper *k);

/* ---- keeper_records.c ---- */

void keeper_put(struct keeper *k, const struct vault_record *r, int fd);
void keeper_drop(struct keeper *k, uint64_t id);
struct kept *keeper_find(const struct keeper *k, uint64_t id);

/* One that was in the store, without its descriptor.  0 or -ENOMEM. */
int keeper_load(struct keeper *k, const struct vault_record *r, unsigned int slot);

/* All records, and that they were all.  0 or a negative errno. */
int keeper_send_all(const struct keeper *k, int sock);

/* ---- keeper_store.c ---- */

#define STORE_AGAIN_MS 100   /* the manager is behind */
#define STORE_FORGET_MS 5000 /* for it to close what it has forgotten */

/* What a keeper that died left with the manager is loaded; or a new one is begun. */
int store_open(struct keeper *k);

/* @kept is new, or has changed, or has got another descriptor than it had. */
void store_put(struct keeper *k, struct kept *kept, bool other_fd);
void store_drop(struct keeper *k, const struct kept *kept);

/* The records are wrong, or cannot be kept: nobody is to begin with them. */
void store_give_up(struct keeper *k);

/* Tell the manager what it could not be told before: while there are tasks, now and then. */
void store_go_on(struct keeper *k);

/* ---- keeper_program.c ---- */

int programs_open(struct programs *p, const char *installed);

/* Execute @program as "ublkzc VERB VERSION SOCK ..."; returns a negative errno if at all. */
int programs_exec(const struct keeper *k, int program, const char *verb, int sock);

/*
 * Try the installed program.  0: rehearsal.sock becomes readable; then
 * programs_rehearsed() tells what came of it, and programs.next has it when it is good.
 */
int programs_rehearse(struct keeper *k);
void programs_rehearsed(struct keeper *k, struct vault_record *ret);
void programs_stop_rehearsal(struct keeper *k);

/* Has the program that was tried last been found good, and not served yet? */
bool programs_may_serve(const struct programs *p);

/* Is another program installed than the one that keeps dying? */
bool programs_has_another(const struct programs *p);

/* ---- keeper_upgrade.c ---- */

/* The server has asked; what was tried has an outcome. */
void upgrade_try(struct keeper *k);
void upgrade_tried(struct keeper *k);

/* What was tried serves, and has died: the program that worked is the next. */
void upgrade_fall_back(struct keeper *k);

/* To a server that is live: an upgrade has failed before it was. */
void upgrade_tell_failure(struct keeper *k);

/* Milliseconds that who is on probation has left to become live or to have lasted; -1: nobody. */
int upgrade_deadline(const struct keeper *k);
void upgrade_keep_deadline(struct keeper *k);

#endif
