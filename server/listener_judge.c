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

int listener_judge_proof(unsigned int device, int fd, enum wire_reason *ret_reason)
{
	struct blkdev_ublk found;
	int flags = fcntl(fd, F_GETFL);
	int ret;

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

static bool has_user_budget(const struct client *c)
{
	return c->uid != 0 && c->uid != geteuid();
}

struct user_total {
	unsigned int clients;
	uint64_t bytes;
};

static struct user_total total_of(const struct listener *l, uid_t uid)
{
	struct user_total total = { 0 };

	for (const struct client *c = l->first; c; c = c->next) {
		if (c->uid != uid)
			continue;
		total.clients++;
		total.bytes += c->bytes + c->scan.bytes;
	}
	return total;
}

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

static int over_budget(const struct client *c, const char *option, uint64_t limit)
{
	if (listener_may_say())
		log_line(LOG_WARN, "process %d of user %u is refused: it wants more than --%s %llu",
			 (int)c->pid, (unsigned int)c->uid, option, (unsigned long long)limit);
	return -EDQUOT;
}

static bool exceeds(uint64_t has, uint64_t more, uint64_t limit)
{
	return more > limit || has > limit - more;
}

int listener_judge_budget(const struct listener *l, const struct client *c, uint64_t len,
			  enum wire_reason *ret_reason)
{
	const struct listener_limits *limits = &l->limits;

	*ret_reason = WIRE_OVER_BUDGET;
	if (c->nr_buffers >= limits->max_buffers)
		return over_budget(c, "max-buffers", limits->max_buffers);
	if (exceeds(c->bytes, len, limits->max_client_bytes))
		return over_budget(c, "max-client-bytes", limits->max_client_bytes);
	if (has_user_budget(c) && exceeds(total_of(l, c->uid).bytes, len, limits->max_user_bytes))
		return over_budget(c, "max-user-bytes", limits->max_user_bytes);
	*ret_reason = WIRE_OK;
	return 0;
}

uint64_t listener_judge_scan(const struct listener *l, const struct client *c)
{
	const struct listener_limits *limits = &l->limits;
	uint64_t others;

	if (!has_user_budget(c))
		return limits->max_client_bytes;
	others = total_of(l, c->uid).bytes - c->scan.bytes;
	if (others >= limits->max_user_bytes)
		return 0;
	return limits->max_user_bytes - others < limits->max_client_bytes
		       ? limits->max_user_bytes - others
		       : limits->max_client_bytes;
}

int listener_judge_user(const struct listener *l, const struct client *c)
{
	unsigned int limit = l->limits.max_user_clients;

	if (!has_user_budget(c) || total_of(l, c->uid).clients <= limit)
		return 0;
	return over_budget(c, "max-user-clients", limit);
}
