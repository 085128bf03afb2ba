/* SPDX-License-Identifier: MIT */
/* users.c - see users.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "users.h"

void as_user(unsigned int uid, int (*step)(struct both *b), struct both *b)
{
	const struct rlimit limit = { LIMIT * PAGE, LIMIT * PAGE };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (setrlimit(RLIMIT_MEMLOCK, &limit) || setresuid(uid, uid, uid))
			_exit(1);
		_exit(step(b));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status))
		fail_msg("line %d", WEXITSTATUS(status));
}

static int add_own(struct both *b)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = 1,
		.queue_depth = ABI_DEPTH,
		.max_io_buf_bytes = ABI_IO_BYTES,
		.dev_id = UINT32_MAX,
		.flags = UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_UNPRIVILEGED_DEV | UBLK_F_SHMEM_ZC |
			 UAPI_F_SHMEM_LIST, /* cleared where it is not known */
	};

	EXPECT(abi_command(&b->s, UBLK_U_CMD_ADD_DEV, UINT32_MAX, (uintptr_t)&info, sizeof(info),
			   0),
	       0);
	EXPECT((info.flags & UBLK_F_UNPRIVILEGED_DEV) && (info.flags & UBLK_F_SHMEM_ZC), true);
	b->s.device = info.dev_id;
	b->s.unprivileged = true;
	return 0;
}

struct both *add_users_device(void)
{
	struct both *b = shared_pages(sizeof(*b) / PAGE);
	char path[32];
	struct stat st;

	assert_int_equal(ctrl_open(&b->s.ctrl), 0);
	as_user(USER, add_own, b);
	/* what udev rules do */
	snprintf(path, sizeof(path), "/dev/ublkc%u", b->s.device);
	for (int i = 0; i < 100 && stat(path, &st); i++)
		usleep(10000);
	assert_int_equal(chown(path, USER, USER), 0);
	return b;
}

void delete_users_device(struct both *b)
{
	assert_int_equal(abi_command(&b->s, UBLK_U_CMD_DEL_DEV, b->s.device, 0, 0, 0), 0);
	ctrl_close(&b->s.ctrl);
	munmap(b, sizeof(*b));
	assert_nothing_pinned();
}
