/* SPDX-License-Identifier: MIT */
/*
 * list_test.c - the driver lists the buffers of a device (UAPI_F_SHMEM_LIST, of kernel-patch/).
 * Skipped on a driver that does not offer it.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define LIST_FLAGS (ZC_FLAGS | UAPI_F_SHMEM_LIST)
#define SEGS_FLAGS (ZC_FLAGS | UAPI_F_SHMEM_SEGS)

static int list(struct abi_server *s, uint64_t from, struct uapi_shmem_buf_info *infos, size_t nr)
{
	return abi_command(s, UAPI_CMD_LIST_BUFS, s->device, (uintptr_t)infos,
			   (uint16_t)(nr * sizeof(*infos)), from);
}

static void extensions_must_be_asked_for(void **state)
{
	struct abi_server s;
	struct uapi_shmem_buf_info info;

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_zc(&s);
	assert_int_equal(s.flags & (UAPI_F_SHMEM_LIST | UAPI_F_SHMEM_SEGS), 0);
	assert_int_equal(list(&s, 0, &info, 1), -EOPNOTSUPP);
	abi_del(&s);
	/* not without what they extend */
	assert_int_equal(abi_add(&s, LIST_FLAGS & ~UBLK_F_SHMEM_ZC), -EINVAL);
	assert_int_equal(abi_add(&s, SEGS_FLAGS & ~UBLK_F_SHMEM_ZC), -EINVAL);
	assert_int_equal(abi_add(&s, SEGS_FLAGS & ~UBLK_F_USER_COPY), -EINVAL);
}

static void buffers_are_listed_in_order(void **state)
{
	struct abi_server s;
	struct uapi_shmem_buf_info infos[8];
	char *p = shared_pages(16);

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_with(&s, LIST_FLAGS);
	assert_int_equal(list(&s, 0, infos, 8), 0);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, 2 * PAGE, UAPI_SHMEM_BUF_READ_ONLY), 1);
	assert_int_equal(abi_reg(&s, p + 8 * PAGE, 8 * PAGE, 0), 2);
	assert_int_equal(list(&s, 0, infos, 8), 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(infos[i].index, i);
		assert_int_equal(infos[i].len, (i == 0 ? 4 : i == 1 ? 2 : 8) * PAGE);
		assert_int_equal(infos[i].flags, i == 1 ? UAPI_SHMEM_BUF_READ_ONLY : 0);
		assert_true(infos[i].nr_runs >= 1);
		assert_true(infos[i].nr_runs <= infos[i].len / PAGE);
		assert_int_equal(infos[i].pid, 0);
	}
	/* a part of it: the array decides how many, the caller where to go on */
	assert_int_equal(list(&s, 1, infos, 1), 1);
	assert_int_equal(infos[0].index, 1);
	assert_int_equal(list(&s, 2, infos, 1), 1);
	assert_int_equal(infos[0].index, 2);
	assert_int_equal(list(&s, 3, infos, 1), 0);
	assert_int_equal(abi_unreg(&s, 1), 0);
	assert_int_equal(list(&s, 1, infos, 8), 1);
	assert_int_equal(infos[0].index, 2);
	abi_del(&s);
	munmap(p, 16 * PAGE);
	assert_nothing_pinned();
}

static void list_refuses_what_is_malformed(void **state)
{
	struct abi_server s;
	struct uapi_shmem_buf_info info;
	char *p = shared_pages(1);

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_with(&s, LIST_FLAGS);
	assert_int_equal(abi_reg(&s, p, PAGE, 0), 0);
	assert_int_equal(list(&s, UAPI_SHMEM_BUF_INDEX_MAX, &info, 1), 0);
	assert_int_equal(list(&s, UAPI_SHMEM_BUF_INDEX_MAX + 1, &info, 1), -EINVAL);
	assert_int_equal(list(&s, 1ULL << 32, &info, 1), -EINVAL);
	assert_int_equal(list(&s, 0, &info, 0), -EINVAL);
	assert_int_equal(abi_command(&s, UAPI_CMD_LIST_BUFS, s.device, (uintptr_t)&info,
				     sizeof(info) - 1, 0),
			 -EINVAL);
	assert_int_equal(list(&s, 0, (void *)8, 1), -EFAULT);
	assert_int_equal(abi_command(&s, UAPI_CMD_LIST_BUFS, s.device + 1000, (uintptr_t)&info,
				     sizeof(info), 0),
			 -ENODEV);
	abi_del(&s);
	munmap(p, PAGE);
}

/* A process that waits for its UNREG_BUF can be killed, whoever holds the request. */
static void a_killed_unregistration_ends_by_itself(void **state)
{
	struct abi_server s;
	struct uapi_shmem_buf_info info;
	uint8_t *p = shared_pages(5);
	struct read_call read = { .s = &s, .buf = p, .len = PAGE };
	pthread_t reader;
	int status = -1;
	pid_t pid;

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	add_with(&s, LIST_FLAGS);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	s.hold = true;
	pthread_create(&reader, NULL, read_thread, &read);
	while (!s.nr_held)
		usleep(1000);
	pid = fork();
	if (pid == 0)
		_exit(abi_unreg(&s, 0) != 0);
	do {
		usleep(10000);
		assert_int_equal(list(&s, 0, &info, 1), 1);
	} while (!(info.flags & UAPI_SHMEM_BUF_DYING));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	/* still taken, and still pinned: the request is in it */
	assert_int_equal(s.nr_held, 1);
	assert_int_equal(list(&s, 0, &info, 1), 1);
	assert_true(pinned() >= 4);
	/* its memory can be registered again */
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 1);
	s.hold = false;
	pthread_join(reader, NULL);
	assert_int_equal(read.res, PAGE);
	/* with its last request it goes by itself, and its index is free */
	for (int i = 0; i < 200 && !info.index; i++) {
		usleep(10000);
		assert_int_equal(list(&s, 0, &info, 1), 1);
	}
	assert_int_equal(info.index, 1);
	assert_int_equal(abi_unreg(&s, 0), -ENOENT);
	for (int i = 0; i < 100 && pinned() > 4; i++)
		usleep(50000);
	assert_int_equal(pinned(), 4);
	assert_int_equal(abi_reg(&s, p + 4 * PAGE, PAGE, 0), 0);
	abi_del(&s);
	munmap(p, 5 * PAGE);
	assert_nothing_pinned();
}

static void buffers_are_listed_between_two_servers(void **state)
{
	struct abi_server *s;
	struct uapi_shmem_buf_info infos[4];
	uint8_t *p = shared_pages(8);

	(void)state;
	requires_feature(UAPI_F_SHMEM_LIST);
	s = start_mortal(LIST_FLAGS | UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE);
	assert_int_equal(abi_reg(s, p, 4 * PAGE, 0), 0);
	assert_int_equal(abi_reg(s, p + 4 * PAGE, 4 * PAGE, 0), 1);
	abi_kill_process(s);
	assert_int_equal(list(s, 0, infos, 4), 2);
	abi_begin_recovery(s);
	assert_int_equal(list(s, 0, infos, 4), 2);
	assert_int_equal(abi_unreg(s, 0), 0);
	assert_int_equal(list(s, 0, infos, 4), 1);
	assert_int_equal(infos[0].index, 1);
	abi_end_recovery(s);
	assert_int_equal(list(s, 0, infos, 4), 1);
	assert_true(read_matches(s, p + 4 * PAGE, PAGE));
	assert_false(read_matches(s, p, PAGE));
	end_mortal(s);
	munmap(p, 8 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(extensions_must_be_asked_for),
		cmocka_unit_test(buffers_are_listed_in_order),
		cmocka_unit_test(list_refuses_what_is_malformed),
		cmocka_unit_test(a_killed_unregistration_ends_by_itself),
		cmocka_unit_test(buffers_are_listed_between_two_servers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
