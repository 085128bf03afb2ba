/* SPDX-License-Identifier: MIT */
/*
 * edge_unprivileged_test.c - devices of ordinary users: who may register, and how much.
 *
 * Our driver counts registered pages against the user's RLIMIT_MEMLOCK; the stock one does not
 * count them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define USER 65534U
#define OTHER_USER 65533U
#define LIMIT 64U /* pages */

/* In memory shared with the users' processes. */
struct both {
	struct abi_server s;
	uint8_t pages[2 * LIMIT * PAGE] __attribute__((aligned(4096)));
};

/* @step in a process of @uid, which may lock LIMIT pages; it returns 0 or a line number. */
static void as_user(unsigned int uid, int (*step)(struct both *b), struct both *b)
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
		fail_msg("line %d", WEXITSTATUS(status)); /* lines go to 255 */
}

#define EXPECT(what, result)                                                                       \
	do {                                                                                       \
		if ((what) != (result))                                                            \
			return __LINE__;                                                           \
	} while (0)

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

static struct both *add_users_device(void)
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

static void delete_users_device(struct both *b)
{
	assert_int_equal(abi_command(&b->s, UBLK_U_CMD_DEL_DEV, b->s.device, 0, 0, 0), 0);
	ctrl_close(&b->s.ctrl);
	munmap(b, sizeof(*b));
	assert_nothing_pinned();
}

/* ---- who ---- */

static int register_and_unregister(struct both *b)
{
	EXPECT(abi_reg(&b->s, b->pages, 4 * PAGE, 0), 0);
	EXPECT(abi_reg(&b->s, b->pages + 4 * PAGE, 4 * PAGE, 0), 1);
	EXPECT(abi_unreg(&b->s, 0), 0);
	EXPECT(abi_unreg(&b->s, 1), 0);
	EXPECT(abi_unreg(&b->s, 1), -ENOENT);
	b->s.unprivileged = false; /* commands without the path */
	EXPECT(abi_reg(&b->s, b->pages, PAGE, 0), -EINVAL);
	EXPECT(abi_unreg(&b->s, 0), -EINVAL);
	b->s.unprivileged = true;
	return 0;
}

static int be_refused(struct both *b)
{
	EXPECT(abi_reg(&b->s, b->pages, PAGE, 0), -EACCES);
	EXPECT(abi_unreg(&b->s, 0), -EACCES);
	return 0;
}

static void users_register_with_their_own_devices(void **state)
{
	struct both *b = add_users_device();

	(void)state;
	as_user(USER, register_and_unregister, b);
	as_user(OTHER_USER, be_refused, b);
	assert_int_equal(abi_reg(&b->s, b->pages, PAGE, 0), 0); /* root may */
	delete_users_device(b);
}

static int list_two(struct both *b)
{
	struct uapi_shmem_buf_info infos[2] = { 0 };

	EXPECT(abi_reg(&b->s, b->pages, 4 * PAGE, 0), 0);
	EXPECT(abi_command(&b->s, UAPI_CMD_LIST_BUFS, b->s.device, (uintptr_t)infos, sizeof(infos),
			   0),
	       1);
	EXPECT(infos[0].len, 4 * PAGE);
	EXPECT(infos[1].len, 0);
	/* the array is what is left behind the path */
	EXPECT(abi_command(&b->s, UAPI_CMD_LIST_BUFS, b->s.device, (uintptr_t)infos,
			   sizeof(infos[0]) - 1, 0),
	       -EINVAL);
	return 0;
}

static int be_told_nothing(struct both *b)
{
	struct uapi_shmem_buf_info info = { 0 };

	EXPECT(abi_command(&b->s, UAPI_CMD_LIST_BUFS, b->s.device, (uintptr_t)&info, sizeof(info),
			   0),
	       -EACCES);
	EXPECT(info.len, 0);
	return 0;
}

static void users_list_the_buffers_of_their_own_devices(void **state)
{
	struct both *b;

	(void)state;
	if (!is_ours())
		skip();
	b = add_users_device();
	as_user(USER, list_two, b);
	as_user(OTHER_USER, be_told_nothing, b);
	delete_users_device(b);
}

/* ---- how much ---- */

static int use_all(struct both *b)
{
	EXPECT(abi_reg(&b->s, b->pages, LIMIT * PAGE, 0), 0);
	EXPECT(abi_reg(&b->s, b->pages + LIMIT * PAGE, PAGE, 0), -ENOMEM);
	return 0;
}

static int use_all_and_give_it_up(struct both *b)
{
	int ret = use_all(b);

	if (ret)
		return ret;
	EXPECT(abi_unreg(&b->s, 0), 0);
	return 0;
}

static int fail_in_every_way(struct both *b)
{
	EXPECT(abi_reg(&b->s, b->pages, (LIMIT + 1) * PAGE, 0), -ENOMEM);
	/* cannot be pinned */
	EXPECT(munmap(b->pages + LIMIT / 2 * PAGE, PAGE), 0);
	EXPECT(abi_reg(&b->s, b->pages, LIMIT * PAGE, 0), -EFAULT);
	/* is there already */
	EXPECT(abi_reg(&b->s, b->pages, LIMIT / 2 * PAGE, 0), 0);
	EXPECT(abi_reg(&b->s, b->pages, LIMIT / 2 * PAGE, 0), -EEXIST);
	EXPECT(abi_reg(&b->s, b->pages + LIMIT * PAGE, LIMIT / 2 * PAGE, 0), 1);
	EXPECT(abi_unreg(&b->s, 0), 0);
	EXPECT(abi_unreg(&b->s, 1), 0);
	return 0;
}

static int have_nothing_left(struct both *b)
{
	EXPECT(abi_reg(&b->s, b->pages + LIMIT * PAGE, PAGE, 0), -ENOMEM);
	return 0;
}

static void registered_pages_count_against_the_users_limit(void **state)
{
	struct both *b;

	(void)state;
	if (!is_ours()) {
		print_message("the stock driver does not count them\n");
		skip();
	}
	b = add_users_device();
	as_user(USER, use_all_and_give_it_up, b);
	as_user(USER, fail_in_every_way, b);
	as_user(USER, use_all, b);
	/* that process is gone, its buffer is not: it still counts */
	as_user(USER, have_nothing_left, b);
	assert_int_equal(abi_reg(&b->s, b->pages + LIMIT * PAGE, PAGE, 0), 1); /* root's does not */
	/* nor any more when the device is gone */
	delete_users_device(b);
	b = add_users_device();
	as_user(USER, use_all, b);
	delete_users_device(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(users_register_with_their_own_devices),
		cmocka_unit_test(users_list_the_buffers_of_their_own_devices),
		cmocka_unit_test(registered_pages_count_against_the_users_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
