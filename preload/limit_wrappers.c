/* SPDX-License-Identifier: MIT */
/*
 * limit_wrappers.c - a program that limits its own memory.
 *
 * Our reservation is large and empty, but counts against RLIMIT_AS: without it
 * the program would find the limit reached at once.  RLIMIT_DATA counts private memory: what a
 * child of fork copies would be over it, so nothing is captured any more.
 */
#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "arena.h"
#include "blocks.h"
#include "fork.h"
#include "next.h"
#include "shim.h"
#include "sys.h"

#define EXPORT __attribute__((visibility("default")))

static void before_limit(int resource, const void *limit)
{
	if (resource == RLIMIT_DATA && limit &&
	    ((const struct rlimit64 *)limit)->rlim_cur != RLIM64_INFINITY)
		fork_never_again();
	if (resource != RLIMIT_AS || !limit || !arena_reserved)
		return;
	/* A child of vfork limits itself, in its parent's memory. */
	if (shim.owner != sys_getpid() || !blocks_lock_within(100))
		return;
	arena_trim_all();
	blocks_unlock();
}

static int raw(pid_t pid, int resource, const void *limit, void *old)
{
	long ret = sys_call(SYS_prlimit64, pid, resource, (long)limit, (long)old, 0, 0);

	if (ret >= 0)
		return 0;
	errno = (int)-ret;
	return -1;
}

EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	before_limit(resource, limit);
	if (next_resolved() && next.setrlimit)
		return next.setrlimit(resource, limit);
	return raw(0, resource, limit, NULL);
}

EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	before_limit(resource, limit);
	if (next_resolved() && next.setrlimit64)
		return next.setrlimit64(resource, limit);
	return raw(0, resource, limit, NULL);
}

EXPORT int prlimit(pid_t pid, enum __rlimit_resource resource, const struct rlimit *limit,
		   struct rlimit *old)
{
	if (pid == 0 || pid == sys_getpid())
		before_limit(resource, limit);
	if (next_resolved() && next.prlimit)
		return next.prlimit(pid, resource, limit, old);
	return raw(pid, resource, limit, old);
}

EXPORT int prlimit64(pid_t pid, enum __rlimit_resource resource, const struct rlimit64 *limit,
		     struct rlimit64 *old)
{
	if (pid == 0 || pid == sys_getpid())
		before_limit(resource, limit);
	if (next_resolved() && next.prlimit64)
		return next.prlimit64(pid, resource, limit, old);
	return raw(pid, resource, limit, old);
}
