/* SPDX-License-Identifier: MIT */
/* keeper_upgrade.c - an upgrade: what was tried, whether it proves itself, and who is told. */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "common/log.h"
#include "keeper_internal.h"

static void tell(const struct keeper *k, enum vault_op op, int status, enum wire_reason reason)
{
	struct vault_record r = { .outcome = { .status = status, .reason = reason } };

	if (k->sock >= 0)
		vault_send(k->sock, op, &r, -1);
}

void upgrade_try(struct keeper *k)
{
	int ret = programs_rehearse(k);

	if (ret)
		tell(k, VAULT_TRIED, ret,
		     ret == -EBUSY ? WIRE_UPGRADING : WIRE_PROGRAM_MISSING);
}

void upgrade_tried(struct keeper *k)
{
	struct vault_record r;

	programs_rehearsed(k, &r);
	tell(k, VAULT_TRIED, r.outcome.status, r.outcome.reason);
}

static void prove(struct keeper *k)
{
	struct programs *p = &k->programs;

	close(p->good);
	p->good = p->next;
	p->next = -1;
	p->probation = false;
	tell(k, VAULT_OUTCOME, 0, WIRE_OK);
}

void upgrade_fall_back(struct keeper *k)
{
	struct programs *p = &k->programs;

	log_line(LOG_ERROR, "/dev/ublkb%u: the new program has not lasted; the old one comes back",
		 k->device);
	close(p->next);
	p->next = -1;
	p->probation = false;
	p->deaths = 0; /* those were not the old one's, which gets its tries again */
	k->failed = WIRE_PROGRAM_DIED;
}

void upgrade_tell_failure(struct keeper *k)
{
	if (k->failed)
		tell(k, VAULT_OUTCOME, k->failed == WIRE_PROGRAM_DIED ? -ENOEXEC : -EOWNERDEAD,
		     k->failed);
	k->failed = WIRE_OK;
}

int upgrade_deadline(const struct keeper *k)
{
	long long left;

	if (!k->programs.probation || k->killed)
		return -1;
	left = k->live_at ? k->live_at + k->start->times.probation
			  : k->started_at + k->start->times.start;
	left -= keeper_now_ms();
	return left > 0 ? (int)left : 0;
}

void upgrade_keep_deadline(struct keeper *k)
{
	if (upgrade_deadline(k) != 0)
		return;
	if (k->live_at) {
		prove(k);
	} else {
		keeper_signal(k, SIGKILL); /* it does not become live */
		k->killed = true;	   /* it may take its time to die */
	}
}
