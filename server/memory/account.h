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
 * A user's registrations may stop a device for one part in PACE_SHARE of the time, and for
 * PACE_BURST ms at once after twenty seconds without any.  So in any ten seconds others lose
 * less than a tenth of theirs: 250 ms by the share, 500 by the burst, and what it takes to get
 * going again.
 */
#define PACE_SHARE 40
#define PACE_BURST 500 /* ms */

/*
 * How long a registration and its end stop the device, ms, is what his last ones took:
 * that differs by a hundred between drivers and machines.  A user begins with what those of
 * others took, and the first one with a guess.  There are bounds, because on a busy machine
 * an answer waits for more than the driver.
 */
#define PACE_COST_FIRST 30
#define PACE_COST_LEAST 4
#define PACE_COST_MOST 400

struct pace {
	long long credit; /* ms of the device's time, times PACE_SHARE */
	long long at;	  /* ms: credit is of this moment */
	long long cost;	  /* ms of it that a registration takes */
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
	bool waits; /* its turn has not come, in the plan that is being made (plan.c) */
};

/* How many bytes more may be registered, 0 also when it may be no registration at all. */
uint64_t account_room(const struct account *a);

void account_charge(struct account *a, uint64_t bytes);
void account_refund(struct account *a, uint64_t bytes);

/*
 * Pay for @nr registrations at @now (ms); @cost of one for who never had any.  False: not yet,
 * and nothing was paid.
 */
bool account_take_turn(struct account *a, unsigned int nr, long long cost, long long now);

/* What one costs, when it was @cost and the last one took @ms. */
long long account_cost(long long cost, long long ms);

/* One of its registrations took @ms. */
void account_learn(struct account *a, long long ms);

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
