/* SPDX-License-Identifier: MIT */
/* keeper_spare.c - the keeper is spared when memory runs out, and may hold much; its
 * servers are processes like others. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "keeper_internal.h"

static const char oom_path[] = "/proc/self/oom_score_adj";

static void write_oom_score_adj(const char *score)
{
	FILE *f = fopen(oom_path, "we");

	if (!f)
		return;
	fputs(score, f);
	fclose(f);
}

/* proc(5); it has no memory to give back. */
static void spare(struct keeper *k)
{
	FILE *f = fopen(oom_path, "re");

	strcpy(k->oom_score_adj, "0");
	if (f) {
		if (fscanf(f, "%15s", k->oom_score_adj) != 1)
			strcpy(k->oom_score_adj, "0");
		fclose(f);
	}
	write_oom_score_adj("-1000");
}

static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	/* One for each client and buffer; 2^20 is the kernel's own default bound. */
	limit.rlim_cur = limit.rlim_max = limit.rlim_max > (1U << 20) ? limit.rlim_max : 1U << 20;
	setrlimit(RLIMIT_NOFILE, &limit);
}

void keeper_spare(struct keeper *k)
{
	raise_fd_limit();
	spare(k);
}

void keeper_unspare(const struct keeper *k)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	write_oom_score_adj(k->oom_score_adj);
}
