/* SPDX-License-Identifier: MIT */
/*
 * account.h - who pays for registered memory: a client, its user.
 *
 * A registered byte is paid once, however many use it.  Budgets are in bytes and in
 * registrations; a user has a rate of registrations as well, because on the stock driver
 * each one stops the whole device for a moment.
 *
 * Control thread only.
 */
#ifndef UBLKZC_SERVER_MEMORY_ACCOUNT_H
#define UBLKZC_SERVER_MEMORY_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Registrations that a user has at once, and one more for each PACE_MS: measured, one and
 * its end cost a busy stock device some 30 ms.
 */
#define PACE_BURST 16
#define PACE_MS 1000

struct pace {
	long long credit; /* ms; PACE_MS buy a registration */
	long long at;	  /* ms: credit is of this moment */
	bool begun;
};

struct account {
	struct account *parent; /* pays as well; NULL: none */
	uid_t user;		/* whose threads work for it */
	const char *option;	/* the one that sets max_bytes */
	uint64_t bytes, max_bytes;
	unsigned int slices, max_slices;
	unsigned int files, max_files; /* of the one without a parent */
	bool paced;
	struct pace pace;
};

/* How many bytes more may be registered, 0 also when it may be no registration at all. */
uint64_t account_room(const struct account *a);

void account_charge(struct account *a, uint64_t bytes);
void account_refund(struct account *a, uint64_t bytes);

/* Pay for @nr registrations at @now (ms).  False: not yet, and nothing was paid. */
bool account_take_turn(struct account *a, unsigned int nr, long long now);

/* One more file, which costs a descriptor here and one in the keeper.  False: too many. */
bool account_take_file(struct account *a);
void account_give_file(struct account *a);
/* One that is there already, whatever the limit is. */
void account_inherit_file(struct account *a);
/* The one that pays for files. */
struct account *account_top(struct account *a);

/* Whether nothing of it is used and its pace is as fresh as a new one's. */
bool account_is_idle(struct account *a, long long now);

/* The one whose limit is reached, or NULL. */
const struct account *account_limit(const struct account *a);

#endif
