/* SPDX-License-Identifier: MIT */
/*
 * shim.c - state of the shim in this process.
 *
 * A page that the kernel wipes on fork tells a child that our fork handlers
 * did not see (raw clone) from the process that owns the arenas.  A
 * vfork child runs in its parent's memory: the page is intact, but the process
 * number differs, and it must not change state (its descriptors are its own).
 */
#include "shim.h"

#include <linux/kcmp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "sys.h"

struct shim shim;

static volatile unsigned char *_Atomic own_byte; /* NULL until there is an arena */

/*
 * A child of vfork, before its parent has an arena: libc takes the thread for its parent's
 * still, and the memory is that one's.  A child that was made by clone libc takes for that too.
 */
static bool in_anothers_memory(void)
{
	clockid_t clock;
	pid_t pid = sys_getpid();

	/* The kernel's number of a thread's clock has the thread's in it. */
	if (pthread_getcpuclockid(pthread_self(), &clock))
		return true;
	if (~(clock >> 3) == sys_call(SYS_gettid, 0, 0, 0, 0, 0, 0))
		return false;
	return sys_call(SYS_kcmp, sys_call(SYS_getppid, 0, 0, 0, 0, 0, 0), pid, KCMP_VM, 0, 0, 0) <=
	       0;
}

/* Several threads may come here first at once. */
bool shim_mark_owner(void)
{
	volatile unsigned char *none = NULL;
	long map;

	if (own_byte)
		return true;
	if (in_anothers_memory())
		return false;
	map = sys_mmap(NULL, ARENA_GRANULE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	if (sys_is_error(map))
		return false;
	if (sys_madvise((void *)map, ARENA_GRANULE, MADV_WIPEONFORK) < 0) {
		sys_munmap((void *)map, ARENA_GRANULE);
		return false;
	}
	*(volatile unsigned char *)map = 1;
	shim.owner = sys_getpid();
	if (!atomic_compare_exchange_strong(&own_byte, &none, (volatile unsigned char *)map))
		sys_munmap((void *)map, ARENA_GRANULE);
	return true;
}

void shim_child_is_owner(void)
{
	shim.owner = sys_getpid();
	if (own_byte)
		*own_byte = 1;
}

bool shim_is_owner(void)
{
	return !own_byte || *own_byte;
}
