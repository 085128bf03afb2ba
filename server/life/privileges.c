/* SPDX-License-Identifier: MIT */
/* privileges.c - see privileges.h; docs/security.md has the reasons. */
#include "privileges.h"

#include <cap-ng.h>
#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "common/log.h"

/* What the control thread does as root, capabilities(7). */
static const unsigned int control[] = {
	CAP_SYS_ADMIN,	  /* commands to the driver; /proc/PID/map_files */
	CAP_SYS_PTRACE,	  /* /proc/PID/maps of other users' programs */
	CAP_DAC_OVERRIDE, /* their SysV segments and files in /dev/shm */
	CAP_IPC_LOCK,	  /* when queues set up their rings: what those pin counts for nobody */
};

/*
 * What no server does once it is live.  Not a list of what it does: io_uring, allocators
 * and libraries change theirs, and a server that is killed for a harmless call is worse
 * than one that could make it.
 */
static const char *const denied[] = {
	"execve",
	"execveat",
	"fork",
	"vfork",
	"ptrace",
	"mount",
	"umount2",
	"move_mount",
	"open_tree",
	"fsopen",
	"pivot_root",
	"chroot",
	"setns",
	"unshare",
	"init_module",
	"finit_module",
	"delete_module",
	"kexec_load",
	"kexec_file_load",
	"bpf",
	"perf_event_open",
	"add_key",
	"request_key",
	"keyctl",
	"setuid",
	"setgid",
	"setreuid",
	"setregid",
	"setresuid",
	"setresgid",
	"setgroups",
	"reboot",
	"swapon",
	"swapoff",
	"sethostname",
	"settimeofday",
	"clock_settime",
	"adjtimex",
	"acct",
	"quotactl",
	"userfaultfd",
	"iopl",
	"ioperm",
	"open_by_handle_at",
	"name_to_handle_at",
	"mknod",
	"mknodat",
	"personality",
	"syslog",
	"pidfd_getfd",
};

static void keep(const unsigned int *caps, unsigned int nr)
{
	unsigned int had = 0;

	/* A server that was not given one of them does without: asking for it would fail. */
	if (capng_get_caps_process())
		log_line(LOG_WARN, "own capabilities cannot be read: errno %d", errno);
	for (unsigned int i = 0; i < nr; i++)
		had |= (unsigned int)capng_have_capability(CAPNG_PERMITTED, caps[i]) << i;
	capng_clear(CAPNG_SELECT_BOTH);
	for (unsigned int i = 0; i < nr; i++)
		if (had & 1U << i)
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, caps[i]);
	if (capng_apply(CAPNG_SELECT_CAPS))
		log_line(LOG_WARN, "capabilities cannot be dropped: errno %d", errno);
}

void privileges_keep_control(void)
{
	keep(control, sizeof(control) / sizeof(control[0]));
}

bool privileges_may_pin(uint64_t *ret_limit)
{
	struct rlimit limit = { .rlim_cur = 0 };

	if (capng_get_caps_process() == 0 && capng_have_capability(CAPNG_EFFECTIVE, CAP_IPC_LOCK))
		return true;
	getrlimit(RLIMIT_MEMLOCK, &limit);
	*ret_limit = limit.rlim_cur;
	return limit.rlim_cur == RLIM_INFINITY;
}

void privileges_keep_none(void)
{
	keep(NULL, 0);
}

static int filter(scmp_filter_ctx ctx)
{
	int ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);

	for (unsigned int i = 0; !ret && i < sizeof(denied) / sizeof(denied[0]); i++) {
		int nr = seccomp_syscall_resolve_name(denied[i]);

		if (nr != __NR_SCMP_ERROR)
			ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), nr, 0);
	}
	return ret ? ret : seccomp_load(ctx);
}

void privileges_filter_calls(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int ret = ctx ? filter(ctx) : -ENOMEM;

	if (ret)
		log_error(ret, "system calls cannot be filtered");
	if (ctx)
		seccomp_release(ctx);
}
