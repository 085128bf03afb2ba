/* SPDX-License-Identifier: MIT */
/* attach.c - see attach.h. */
#include "attach.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"

struct process {
	pid_t pid;
	int pidfd;   /* so that the number cannot come to mean another */
	bool seen;   /* its memory has been looked at */
	uint64_t id; /* in the vault */
};

struct attachment {
	struct attachment *next;
	struct attachments *all;
	pid_t root;
	struct process *processes;
	unsigned int nr;
	time_t next_look;
	struct scan scan;
	void *asker; /* NULL: nobody waits */
	uint32_t seq;
};

static bool has_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

static bool known(const struct attachment *at, pid_t pid)
{
	for (unsigned int i = 0; i < at->nr; i++)
		if (at->processes[i].pid == pid)
			return true;
	return false;
}

static struct process *append_process(struct attachment *at, pid_t pid, int pidfd)
{
	struct process *more;

	if (at->nr == ATTACH_PROCESSES_MAX)
		return NULL;
	more = realloc(at->processes, (at->nr + 1) * sizeof(*more));
	if (!more)
		return NULL;
	at->processes = more;
	more += at->nr++;
	*more = (struct process){ .pid = pid, .pidfd = pidfd };
	return more;
}

static int add_process(struct attachment *at, pid_t pid)
{
	struct vault_record r = {
		.kind = VAULT_ATTACHED,
		.attached = { .root = at->root, .pid = pid },
	};
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct process *p;

	if (pidfd < 0)
		return -errno;
	p = append_process(at, pid, pidfd);
	if (!p) {
		close(pidfd);
		return -ENOMEM;
	}
	vault_put(at->all->vault, &r, pidfd);
	p->id = r.id;
	return 0;
}

static void forget_process(struct attachment *at, const struct process *p)
{
	vault_drop(at->all->vault, p->id);
	close(p->pidfd);
}

static pid_t parent_of(pid_t pid)
{
	char path[32];
	int parent = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	for (char line[256]; fgets(line, sizeof(line), f);)
		if (sscanf(line, "PPid: %d", &parent) == 1)
			break;
	fclose(f);
	return parent;
}

/* Children of one thread of @parent, as proc_pid_task(5) lists them. */
static void add_children_of_thread(struct attachment *at, pid_t parent, const char *tid)
{
	char path[64];
	int pid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", (int)parent, tid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fscanf(f, "%d", &pid) == 1) {
		if (known(at, pid) || add_process(at, pid))
			continue;
		/* Between the list and the pidfd it may have become another's. */
		if (parent_of(pid) != parent)
			forget_process(at, &at->processes[--at->nr]);
	}
	fclose(f);
}

static void add_children(struct attachment *at, pid_t parent)
{
	char path[32];
	DIR *threads;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)parent);
	threads = opendir(path);
	if (!threads)
		return;
	for (struct dirent *e; (e = readdir(threads));)
		if (e->d_name[0] != '.')
			add_children_of_thread(at, parent, e->d_name);
	closedir(threads);
}

/* The list grows while it is walked, so children's children are found too. */
static void find_descendants(struct attachment *at)
{
	for (unsigned int i = 0; i < at->nr; i++)
		add_children(at, at->processes[i].pid);
}

/* True when some have ended. */
static bool drop_ended(struct attachment *at)
{
	unsigned int kept = 0;
	unsigned int before = at->nr;

	for (unsigned int i = 0; i < before; i++) {
		if (has_ended(at->processes[i].pidfd))
			forget_process(at, &at->processes[i]);
		else
			at->processes[kept++] = at->processes[i];
	}
	at->nr = kept;
	return kept != before;
}

/* At all processes, or at those that are new. */
static void look(struct attachment *at, bool all)
{
	scan_begin(&at->scan, all);
	for (unsigned int i = 0; i < at->nr; i++) {
		struct process *p = &at->processes[i];

		if (all || !p->seen)
			scan_process(&at->scan, p->pid, p->pidfd);
		p->seen = true;
	}
	scan_end(&at->scan);
}

static void looked(struct scan *s, void *arg)
{
	struct attachment *at = arg;
	void *asker = at->asker;

	(void)s;
	at->asker = NULL;
	if (asker)
		at->all->attached(at->all->arg, asker, at->seq, at->root);
}

static void free_attachment(struct attachment *at)
{
	struct attachment **link = &at->all->first;

	while (*link != at)
		link = &(*link)->next;
	*link = at->next;
	at->all->nr--;
	scan_forget(&at->scan);
	for (unsigned int i = 0; i < at->nr; i++)
		forget_process(at, &at->processes[i]);
	free(at->processes);
	free(at);
}

static struct attachment *find(const struct attachments *a, pid_t pid)
{
	for (struct attachment *at = a->first; at; at = at->next)
		if (at->root == pid)
			return at;
	return NULL;
}

/* NULL: ATTACH_MAX, or no memory. */
static struct attachment *new_attachment(struct attachments *a, pid_t root)
{
	struct attachment *at = a->nr < ATTACH_MAX ? calloc(1, sizeof(*at)) : NULL;

	if (!at)
		return NULL;
	at->all = a;
	at->root = root;
	at->scan = (struct scan){
		.buffers = a->buffers,
		.max_bytes = a->max_bytes,
		.done = looked,
		.done_arg = at,
	};
	at->next = a->first;
	a->first = at;
	a->nr++;
	return at;
}

static int attach_new(struct attachments *a, pid_t pid, struct attachment **ret)
{
	int err;

	*ret = new_attachment(a, pid);
	if (!*ret)
		return a->nr < ATTACH_MAX ? -ENOMEM : -EUSERS;
	err = add_process(*ret, pid);
	if (err)
		free_attachment(*ret);
	return err;
}

int attach_restore(struct attachments *a, const struct vault_record *r, int pidfd)
{
	struct attachment *at = find(a, r->attached.root);
	struct process *p;

	if (!at)
		at = new_attachment(a, r->attached.root);
	p = at ? append_process(at, r->attached.pid, pidfd) : NULL;
	if (!p) {
		close(pidfd);
		return -ENOMEM;
	}
	p->id = r->id;
	return 0;
}

int attach_add(struct attachments *a, pid_t pid, void *asker, uint32_t seq)
{
	struct attachment *at = find(a, pid);
	int ret = at ? 0 : attach_new(a, pid, &at);

	if (ret)
		return ret;
	at->asker = asker;
	at->seq = seq;
	find_descendants(at);
	look(at, true);
	return 0;
}

int attach_remove(struct attachments *a, pid_t pid)
{
	struct attachment *at = find(a, pid);

	if (!at)
		return -ENOENT;
	free_attachment(at);
	return 0;
}

static int describe(const struct attachment *at, struct attach_info *ret)
{
	if (!at)
		return -ENOENT;
	*ret = (struct attach_info){
		.pid = at->root,
		.processes = at->nr,
		.buffers = at->scan.nr,
		.bytes = at->scan.bytes,
		.refused = at->scan.refused,
		.why = at->scan.why,
	};
	return 0;
}

int attach_get(const struct attachments *a, unsigned int nr, struct attach_info *ret)
{
	const struct attachment *at = a->first;

	while (at && nr--)
		at = at->next;
	return describe(at, ret);
}

int attach_find(const struct attachments *a, pid_t pid, struct attach_info *ret)
{
	return describe(find(a, pid), ret);
}

static void tick(struct attachment *at, time_t now)
{
	unsigned int before;
	bool ended = drop_ended(at);

	if (!at->nr) {
		log_line(LOG_INFO, "process %d and what it forked have ended", (int)at->root);
		free_attachment(at);
		return;
	}
	before = at->nr;
	find_descendants(at);
	if (ended || now >= at->next_look) {
		at->next_look = now + ATTACH_LOOK_SECONDS;
		look(at, true);
	} else if (at->nr != before) {
		look(at, false);
	}
}

void attach_look_again(struct attachments *a)
{
	for (struct attachment *at = a->first; at; at = at->next) {
		drop_ended(at);
		find_descendants(at);
		look(at, true);
	}
}

void attach_tick(struct attachments *a, time_t now)
{
	struct attachment *next;

	if (now < a->next_tick)
		return;
	a->next_tick = now + 1;
	for (struct attachment *at = a->first; at; at = next) {
		next = at->next;
		tick(at, now);
	}
}

void attach_forget_asker(struct attachments *a, const void *asker)
{
	for (struct attachment *at = a->first; at; at = at->next)
		if (at->asker == asker)
			at->asker = NULL;
}

void attach_close(struct attachments *a)
{
	while (a->first)
		free_attachment(a->first);
}
