/* SPDX-License-Identifier: MIT */
/*
 * listener_judge.c - what a client may: its proof of access, its memory, its budgets.
 *
 * Nothing here acts; descriptors are looked at, not used.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/blkdev.h"
#include "common/log.h"
#include "listener_internal.h"

#define SEALS_NEEDED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

int listener_judge_proof(void *host, unsigned int device, int fd, enum wire_reason *ret_reason)
{
	struct blkdev_ublk found;
	int flags = fcntl(fd, F_GETFL);
	int ret;

	(void)host;
	*ret_reason = WIRE_NO_ACCESS;
	if (flags < 0 || (flags & O_PATH))
		return -EACCES;
	ret = blkdev_find_ublk_fd(fd, &found);
	if (ret)
		return ret;
	for (unsigned int i = 0; i < found.nr; i++)
		if (found.ids[i] == device)
			return 0;
	*ret_reason = WIRE_WRONG_DEVICE;
	return -ENODEV;
}

/* Open for what the device will do to it? */
static bool accessible(int fd, bool read_only)
{
	int mode = fcntl(fd, F_GETFL) & O_ACCMODE;

	return mode == O_RDWR || (mode == O_RDONLY && read_only);
}

/* A memfd that can neither shrink nor lose its seals, and the range in it. */
int listener_judge_memory(const struct buffer_request *req, enum wire_reason *ret_reason)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t offset = req->offset;
	uint64_t len = req->len;
	int seals = fcntl(req->fd, F_GET_SEALS);
	struct stat st;

	*ret_reason = WIRE_NOT_MEMFD;
	if (seals < 0 || fstat(req->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EINVAL;
	*ret_reason = WIRE_NOT_WRITABLE;
	if (!accessible(req->fd, req->read_only))
		return -EACCES;
	*ret_reason = WIRE_NOT_SEALED;
	if ((seals & SEALS_NEEDED) != SEALS_NEEDED)
		return -EPERM;
	*ret_reason = WIRE_BAD_RANGE;
	if (!len || len % page || offset % page || len > UAPI_SHMEM_BUF_SIZE_MAX ||
	    offset > (uint64_t)st.st_size || len > (uint64_t)st.st_size - offset)
		return -ERANGE;
	*ret_reason = WIRE_OK;
	return 0;
}

/* ---- budgets ---- */

/* The control thread's only, whatever its listeners. */
bool listener_may_say(void)
{
	static long second;
	static unsigned int lines;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec != second) {
		if (lines > LISTENER_LINES)
			log_line(LOG_WARN, "%u more lines about clients are left out",
				 lines - LISTENER_LINES);
		second = now.tv_sec;
		lines = 0;
	}
	return lines++ < LISTENER_LINES;
}

static void say_limit(const struct client *c, const char *option, uint64_t limit)
{
	if (listener_may_say())
		log_line(LOG_WARN, "process %d of user %u is refused, for the limit --%s %llu",
			 (int)c->pid, (unsigned int)c->uid, option, (unsigned long long)limit);
}

void listener_say_limit(const struct listener *l, const struct client *c, const struct account *a)
{
	const struct account *full = account_limit(a);

	if (full)
		say_limit(c, full->option, full->max_bytes);
	else
		say_limit(c, "max-bytes", l->buffers->max_bytes);
}

int listener_judge_budget(const struct listener *l, const struct client *c,
			  enum wire_reason *ret_reason)
{
	*ret_reason = WIRE_OK;
	if (c->nr_buffers < l->limits.max_buffers)
		return 0;
	*ret_reason = WIRE_OVER_BUDGET;
	say_limit(c, "max-buffers", l->limits.max_buffers);
	return -EDQUOT;
}

int listener_judge_user(const struct listener *l, const struct client *c)
{
	if (!c->user->account.paced || c->user->nr_clients <= l->limits.max_user_clients)
		return 0;
	say_limit(c, "max-user-clients", l->limits.max_user_clients);
	return -EDQUOT;
}
