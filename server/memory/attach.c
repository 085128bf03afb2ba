/* SPDX-License-Identifier: MIT */
/* attach.c - see attach.h. */
#include "attach.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "server/life/worker.h"

struct process {
	pid_t pid;
	int pidfd;   /* so that the number cannot come to mean another */
	bool seen;   /* its memory has been looked at */
	bool ended;
};

/* Who waits for the end of a look that begins after he came. */
struct asker {
	struct asker *next;
	void *who;
	uint32_t seq;
	bool late; /* the look under way was begun before */
};

struct attachment {
	struct attachment *next;
	struct attachments *all; /* NULL: given up, and freed after the look under way */
	pid_t root;
	struct process *processes; /* the thread's, while looking, as is nr */
	unsigned int nr;
	uint64_t *ids; /* in the vault, of those that were there before the look */
	unsigned int nr_ids;
	bool looking;
	bool again; /* look once more after that */
	time_t next_look;
	struct scan scan;
	struct asker *askers;
};

/* A look at all its processes, on a thread of theirs. */
struct look {
	struct worker_job work; /* first */
	struct attachment *at;
	bool all; /* also the memory of those that have been seen */
	struct scan_found found;
};

static bool has_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

/* ---- looking, on the thread ---- */

static bool known(const struct attachment *at, pid_t pid)
{
	for (unsigned int i = 0; i < at->nr; i++)
		if (at->processes[i].pid == pid && !at->processes[i].ended)
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
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0)
		return -errno;
	if (append_process(at, pid, pidfd))
		return 0;
	close(pidfd);
	return -ENOMEM;
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

/*
 * Children of one thread of @parent, as proc_pid_task(5) lists them.  For as long as it has not
 * ended, its number is nobody else's.
 */
static void add_children_of_thread(struct attachment *at, const struct process *parent,
				   const char *tid)
{
	char path[64];
	int pid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", (int)parent->pid, tid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fscanf(f, "%d", &pid) == 1) {
		if (known(at, pid) || add_process(at, pid))
			continue;
		/* Between the list and the pidfd it may have become another's. */
		if (parent_of(pid) != parent->pid || has_ended(parent->pidfd))
			close(at->processes[--at->nr].pidfd);
	}
	fclose(f);
}

static void add_children(struct attachment *at, const struct process *parent)
{
	char path[32];
	DIR *threads;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)parent->pid);
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
	for (unsigned int i = 0; i < at->nr; i++) {
		struct process parent = at->processes[i]; /* which moves as the list grows */

		if (!parent.ended)
			add_children(at, &parent);
	}
}

static void run_look(struct worker_job *work)
{
	struct look *look = (struct look *)work;
	struct attachment *at = look->at;

	for (unsigned int i = 0; i < at->nr; i++)
		at->processes[i].ended = has_ended(at->processes[i].pidfd);
	find_descendants(at);
	for (unsigned int i = 0; i < at->nr; i++) {
		struct process *p = &at->processes[i];

		/* What one that has ended shared is looked for in the others. */
		if (!p->ended && (look->all || !p->seen))
			scan_look(&look->found, p->pid, p->pidfd);
		p->seen = true;
	}
}

/* ---- what comes of it, on the control thread ---- */

static int append_id(struct attachment *at, uint64_t id)
{
	uint64_t *more = realloc(at->ids, (at->nr_ids + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	at->ids = more;
	at->ids[at->nr_ids++] = id;
	return 0;
}

/* Tell the vault of the process that has no id yet, the first such. */
static int note_process(struct attachment *at)
{
	const struct process *p = &at->processes[at->nr_ids];
	struct vault_record r = {
		.kind = VAULT_ATTACHED,
		.attached = { .root = at->root, .pid = p->pid },
	};
	int ret = append_id(at, 0);

	if (ret)
		return ret;
	vault_put(at->all->vault, &r, p->pidfd);
	at->ids[at->nr_ids - 1] = r.id;
	return 0;
}

/* Those that the look found; what there is no memory for is found again. */
static void note_processes(struct attachment *at)
{
	while (at->nr_ids < at->nr && note_process(at) == 0)
		;
	while (at->nr > at->nr_ids)
		close(at->processes[--at->nr].pidfd);
}

/* True when some have ended. */
static bool drop_ended(struct attachment *at)
{
	unsigned int kept = 0;
	unsigned int before = at->nr;

	for (unsigned int i = 0; i < before; i++) {
		if (at->processes[i].ended) {
			vault_drop(at->all->vault, at->ids[i]);
			close(at->processes[i].pidfd);
			continue;
		}
		at->ids[kept] = at->ids[i];
		at->processes[kept++] = at->processes[i];
	}
	at->nr = at->nr_ids = kept;
	return kept != before;
}

static void free_asker(struct asker **link)
{
	struct asker *gone = *link;

	*link = gone->next;
	free(gone);
}

static void free_processes(struct attachment *at)
{
	for (unsigned int i = 0; i < at->nr; i++)
		close(at->processes[i].pidfd);
	free(at->processes);
	free(at->ids);
	free(at);
}

static void free_attachment(struct attachment *at)
{
	struct attachment **link = &at->all->first;

	while (*link != at)
		link = &(*link)->next;
	*link = at->next;
	at->all->nr--;
	scan_forget(&at->scan);
	while (at->askers)
		free_asker(&at->askers);
	for (unsigned int i = 0; i < at->nr_ids; i++)
		vault_drop(at->all->vault, at->ids[i]);
	at->all = NULL;
	if (!at->looking) /* else the thread has its processes still */
		free_processes(at);
}

/* A look is over, and all that it found is answered. */
static void looked(struct scan *s, void *arg)
{
	struct attachment *at = arg;
	struct asker **link = &at->askers;

	(void)s;
	while (*link) {
		struct asker *a = *link;

		if (a->late) {
			link = &a->next;
			continue;
		}
		at->all->attached(at->all->arg, a->who, a->seq, at->root);
		free_asker(link);
	}
}

static void look(struct attachment *at, bool all);

static void take_look(struct worker_job *work)
{
	struct look *l = (struct look *)work;
	struct attachment *at = l->at;

	at->looking = false;
	if (!at->all) {
		scan_close(&l->found);
		free_processes(at);
		free(l);
		return;
	}
	note_processes(at);
	/* What a process that has ended shared may be wanted no more. */
	if (drop_ended(at) && !l->all)
		at->again = true;
	scan_take(&at->scan, &l->found, l->all);
	free(l);
	for (struct asker *a = at->askers; a; a = a->next)
		a->late = false;
	if (!at->nr) {
		log_line(LOG_INFO, "process %d and what it forked have ended", (int)at->root);
		free_attachment(at);
	} else if (at->again) {
		look(at, true);
	}
}

/* Threads are their owner's, who may make it take long. */
static uid_t owner_of(pid_t pid)
{
	char path[32];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	return stat(path, &st) == 0 ? st.st_uid : 0;
}

/* At all processes, or at those that are new. */
static void look(struct attachment *at, bool all)
{
	struct look *l;

	at->again = false;
	if (at->looking) {
		at->again = all;
		return;
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return; /* with the next tick */
	*l = (struct look){
		.work = { .run = run_look, .done = take_look },
		.at = at,
		.all = all,
	};
	if (worker_start(owner_of(at->root), WORKER_LOOK, &l->work)) {
		free(l);
		return;
	}
	at->looking = true;
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
		.account = { .option = "max-client-bytes",
			     .max_bytes = a->max_bytes,
			     .max_slices = BUFFERS_SLICES_MAX,
			     .max_files = BUFFERS_FILES_MAX },
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
	if (!err)
		err = note_process(*ret);
	if (err)
		free_attachment(*ret);
	return err;
}

int attach_restore(struct attachments *a, const struct vault_record *r, int pidfd)
{
	struct attachment *at = find(a, r->attached.root);

	if (!at)
		at = new_attachment(a, r->attached.root);
	if (!at || !append_process(at, r->attached.pid, pidfd)) {
		close(pidfd);
		return -ENOMEM;
	}
	return append_id(at, r->id);
}

int attach_add(struct attachments *a, pid_t pid, void *asker, uint32_t seq)
{
	struct attachment *at = find(a, pid);
	struct asker *waits = malloc(sizeof(*waits));
	int ret = at || !waits ? 0 : attach_new(a, pid, &at);

	if (ret || !waits) {
		free(waits);
		return ret ? ret : -ENOMEM;
	}
	*waits = (struct asker){ at->askers, asker, seq, at->looking };
	at->askers = waits;
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
		.processes = at->nr_ids,
		.buffers = at->scan.nr,
		.bytes = scan_bytes(&at->scan),
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
	bool all = now >= at->next_look;

	if (at->looking)
		return; /* it takes long */
	if (all)
		at->next_look = now + ATTACH_LOOK_SECONDS;
	look(at, all);
}

void attach_look_again(struct attachments *a)
{
	for (struct attachment *at = a->first; at; at = at->next)
		look(at, true);
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
		for (struct asker **link = &at->askers; *link;)
			if ((*link)->who == asker)
				free_asker(link);
			else
				link = &(*link)->next;
}

void attach_close(struct attachments *a)
{
	while (a->first)
		free_attachment(a->first);
}
