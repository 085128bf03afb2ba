/* SPDX-License-Identifier: MIT */
/*
 * fork_wrappers.c - children for which libc runs no handlers of fork.
 *
 * They are promised a copy of their parent's memory all the same.  What a program does by
 * system calls of its own is not seen (shim.h: shim_is_owner).
 */
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/types.h>
#include <unistd.h>

#include "fork.h"
#include "fork_steps.h"
#include "next.h"
#include "shim.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT pid_t _Fork(void)
{
	pid_t pid;

	if (!next_ready() || !next._Fork) {
		errno = ENOSYS;
		return -1;
	}
	fork_prepare();
	pid = next._Fork();
	if (pid)
		fork_parent();
	else
		fork_child();
	return pid;
}

/* On the parent's stack, of which the child has a copy. */
struct beginning {
	int (*run)(void *);
	void *arg;
};

static int begin(void *arg)
{
	struct beginning b = *(struct beginning *)arg;

	fork_child();
	return b.run(b.arg);
}

/* With CLONE_FILES a child must not close what it does not need. */
static bool is_copy(int flags)
{
	return !(flags & (CLONE_VM | CLONE_FILES)) && shim.owner && shim_is_owner();
}

EXPORT int clone(int (*run)(void *), void *stack, int flags, void *arg, ...)
{
	struct beginning b = { run, arg };
	pid_t *parent_tid, *child_tid;
	void *tls;
	va_list args;
	int pid;

	va_start(args, arg);
	parent_tid = va_arg(args, pid_t *);
	tls = va_arg(args, void *);
	child_tid = va_arg(args, pid_t *);
	va_end(args);
	if (!next_ready() || !next.clone) {
		errno = ENOSYS;
		return -1;
	}
	if (!run || !stack || !is_copy(flags))
		return next.clone(run, stack, flags, arg, parent_tid, tls, child_tid);
	fork_prepare();
	fork_own_stack((char *)stack - 1);
	pid = next.clone(begin, stack, flags, &b, parent_tid, tls, child_tid);
	fork_parent();
	return pid;
}
