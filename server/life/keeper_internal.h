/* SPDX-License-Identifier: MIT */
/* keeper_internal.h - a keeper, for the files keeper*.c. */
#ifndef UBLKZC_SERVER_KEEPER_INTERNAL_H
#define UBLKZC_SERVER_KEEPER_INTERNAL_H

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

struct keeper {
	const struct keeper_start *start;
	void *kept; /* keeper_records.c */
	struct programs programs;
	char oom_score_adj[16];
	int signal_fd;
	int sock; /* to the server; -1: it has hung up */
	pid_t pid;
	int pidfd;
	long long started_at; /* ms, of this server */
	long long live_at;    /* 0: not yet */
	bool live;	      /* some server has been */
	bool leaving;	      /* it has handed over */
	bool fell_back;	      /* for the next that is live to tell */
	bool stale;	      /* records are missing: a successor would serve wrong memory */
	unsigned int device;
	bool stopping;
	long long kill_at; /* ms; while stopping */
	unsigned int pause_ms;
};

long long keeper_now_ms(void);

/* ---- keeper_spare.c ---- */

void keeper_spare(struct keeper *k);
/* In a child that is to become a server: as if the keeper had never been. */
void keeper_unspare(const struct keeper *k);

/* ---- keeper_records.c ---- */

void keeper_put(struct keeper *k, const struct vault_record *r, int fd);
void keeper_drop(struct keeper *k, uint64_t id);

/* All records, and that they were all.  0 or a negative errno. */
int keeper_send_all(const struct keeper *k, int sock);

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

/* Is another program installed than the one that keeps dying? */
bool programs_has_another(const struct programs *p);

#endif
