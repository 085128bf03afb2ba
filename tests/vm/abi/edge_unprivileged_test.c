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
#include <sys/mman.h>

#include <cmocka.h>

#include "users.h"

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
