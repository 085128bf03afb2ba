/* SPDX-License-Identifier: MIT */
/* listener_users.c - budgets of users; root and the server's own user have none. */
#include <stdlib.h>
#include <unistd.h>

#include "listener_internal.h"

static bool has_budget(uid_t uid)
{
	return uid != 0 && uid != geteuid();
}

static struct user *find_user(struct listener *l, uid_t uid)
{
	struct user *u = l->users;

	while (u && u->uid != uid)
		u = u->next;
	return u;
}

static struct user *new_user(struct listener *l, uid_t uid)
{
	struct user *u = malloc(sizeof(*u));
	bool limited = has_budget(uid);

	if (!u)
		return NULL;
	*u = (struct user){
		.next = l->users,
		.uid = uid,
		.account = { .user = uid,
			     .option = "max-user-bytes",
			     .max_bytes = limited ? l->limits.max_user_bytes : UINT64_MAX,
			     .max_slices = limited ? BUFFERS_USER_SLICES_MAX : BUFFERS_SLICES_MAX,
			     .max_files = limited ? BUFFERS_USER_FILES_MAX : BUFFERS_FILES_MAX,
			     .paced = limited },
	};
	l->users = u;
	return u;
}

static struct account account_below(const struct listener *l, struct user *u)
{
	return (struct account){
		.parent = &u->account,
		.user = u->uid,
		.option = "max-client-bytes",
		.max_bytes = l->limits.max_client_bytes,
		.max_slices = BUFFERS_SLICES_MAX,
	};
}

bool listener_join_user(struct listener *l, struct client *c)
{
	struct user *u = find_user(l, c->uid);

	if (!u)
		u = new_user(l, c->uid);
	if (!u)
		return false;
	u->nr_clients++;
	c->user = u;
	c->account = c->scan.account = account_below(l, u);
	return true;
}

void listener_leave_user(struct listener *l, struct client *c)
{
	(void)l;
	c->user->nr_clients--;
}

void listener_sweep_users(struct listener *l)
{
	struct user **link = &l->users;
	struct user *u;

	while ((u = *link)) {
		if (u->nr_clients || !account_is_idle(&u->account, buffers_now(l->buffers))) {
			link = &u->next;
			continue;
		}
		*link = u->next;
		free(u);
	}
}

void listener_free_users(struct listener *l)
{
	buffers_forget_accounts(l->buffers);
	while (l->users) {
		struct user *u = l->users;

		l->users = u->next;
		free(u);
	}
}
