/* SPDX-License-Identifier: MIT */
/*
 * sandbox_wrappers.c - a program that is about to forbid itself system calls.
 *
 * A seccomp filter allows what its author saw the program do, and kills for anything
 * else.  What we would do later for a captured allocation, an open or a fork is not
 * among that.  So when the program takes the step that comes before a filter
 * (PR_SET_NO_NEW_PRIVS, which libseccomp takes too) or sets one, capture ends:
 * from then on there are only the calls that the C library would make itself.
 * What is captured becomes the program's own memory, copy-on-write as after a fork;
 * only if the kernel may hold pages of it, for io_uring or the like, does it stay as it is.
 */
#include <errno.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "fork.h"
#include "next.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"

#define EXPORT __attribute__((visibility("default")))

/* Of another process's memory, in a child of vfork, it is that one's affair: but to end
 * capture does no harm. */
static void before(int option, unsigned long value)
{
	if (option != PR_SET_SECCOMP && !(option == PR_SET_NO_NEW_PRIVS && value == 1))
		return;
	if (shim.owner && shim.owner != sys_getpid())
		return;
	if (shim.sandboxed)
		return;
	shim.on = false;
	shim.watch = false;
	fork_never_again();
	stats_start(program_invocation_short_name,
		    "from the moment on that the program put itself into a sandbox (prctl with "
		    "PR_SET_NO_NEW_PRIVS or PR_SET_SECCOMP)");
	shim.sandboxed = true;
}

EXPORT int prctl(int option, ...)
{
	unsigned long arg[4];
	va_list args;
	long ret;

	/* As libc does: the kernel looks at those that the option has. */
	va_start(args, option);
	for (int i = 0; i < 4; i++)
		arg[i] = va_arg(args, unsigned long);
	va_end(args);
	before(option, arg[0]);
	if (next_resolved() && next.prctl)
		return next.prctl(option, arg[0], arg[1], arg[2], arg[3]);
	ret = sys_call(SYS_prctl, option, (long)arg[0], (long)arg[1], (long)arg[2], (long)arg[3],
		       0);
	if (ret >= 0)
		return (int)ret;
	errno = (int)-ret;
	return -1;
}
