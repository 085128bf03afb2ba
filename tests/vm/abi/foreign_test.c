/* SPDX-License-Identifier: MIT */
/*
 * foreign_test.c - private memory of another process is registered in place, and mapped by the
 * server (UAPI_F_SHMEM_FOREIGN, of kernel-patch/).  What ends it is foreign_end_test's matter.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "foreign.h"
#include "users.h"

#define MEM (64 * PAGE)

static int reg_any(struct abi_server *s, uint64_t addr, uint64_t len, pid_t pid, int event)
{
	struct uapi_shmem_foreign_reg reg = {
		.addr = addr, .len = len, .pid = (uint32_t)pid, .event_fd = event
	};

	return abi_command(s, UAPI_CMD_REG_FOREIGN, s->device, (uintptr_t)&reg, sizeof(reg), 0);
}

static void it_must_be_asked_for(void **state)
{
	struct abi_server s;
	struct uapi_shmem_hint hint;
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	requires_foreign();
	*p = 1;
	add_with(&s, ZC_FLAGS | UAPI_F_SHMEM_LIST);
	assert_int_equal(s.flags & (UAPI_F_SHMEM_FOREIGN | UAPI_F_SHMEM_HINTS), 0);
	assert_int_equal(reg_any(&s, (uintptr_t)p, PAGE, getpid(), -1), -EOPNOTSUPP);
	assert_int_equal(
		abi_command(&s, UAPI_CMD_HINTS, s.device, (uintptr_t)&hint, sizeof(hint), 1),
		-EOPNOTSUPP);
	assert_ptr_equal(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, s.char_fd, UAPI_FOREIGN_OFFSET),
			 MAP_FAILED);
	assert_int_equal(errno, EOPNOTSUPP);
	abi_del(&s);
	/* not without what they extend */
	assert_int_equal(abi_add(&s, ZC_FLAGS | UAPI_F_SHMEM_FOREIGN), -EINVAL);
	assert_int_equal(abi_add(&s, UBLK_F_USER_COPY | UAPI_F_SHMEM_LIST | UAPI_F_SHMEM_FOREIGN),
			 -EINVAL);
	assert_int_equal(abi_add(&s, UBLK_F_USER_COPY | UAPI_F_SHMEM_HINTS), -EINVAL);
	munmap(p, PAGE);
}

static void data_is_right_both_ways(void **state)
{
	struct foreign *f = foreign_start(MEM);
	unsigned int index;

	(void)state;
	assert_false(foreign_read_in_place(f, 0, 4 * PAGE));
	index = foreign_take(f, 8 * PAGE, 32 * PAGE);
	assert_int_equal(foreign_flags(f, index), UAPI_SHMEM_BUF_FOREIGN);
	assert_false(foreign_read_in_place(f, 0, 4 * PAGE));
	for (int i = 0; i < 3; i++) {
		assert_true(foreign_read_in_place(f, 8 * PAGE, 4 * PAGE));
		assert_last(&f->s, (int)index, 0);
		assert_true(foreign_write_in_place(f, 12 * PAGE, 28 * PAGE));
		assert_last(&f->s, (int)index, 4 * PAGE);
		assert_true(foreign_read_in_place(f, 9 * PAGE + 512, 1024));
		assert_last(&f->s, (int)index, PAGE + 512);
	}
	/* over its end */
	assert_false(foreign_write_in_place(f, 38 * PAGE, 4 * PAGE));
	/* the server sees what the process writes, and the other way round, at any time */
	peer_with(f->peer, PEER_FILL, 8 * PAGE, PAGE, 0x77);
	assert_int_equal(f->maps[index][5], 0x77);
	memset(f->maps[index], 0x78, PAGE);
	assert_int_equal(peer_with(f->peer, PEER_SAME, 8 * PAGE, PAGE, 0x78), 1);
	/* behind the buffer there is nothing */
	assert_true(foreign_is_mapped(f, index, 32 * PAGE - 1));
	assert_false(foreign_is_mapped(f, index, 32 * PAGE));
	assert_false(foreign_was_told(f));
	foreign_end(f);
}

static void memory_in_pieces_is_one_buffer(void **state)
{
	struct foreign *f;
	unsigned int index;

	(void)state;
	f = foreign_start(PAGE);
	/* scattered: touched back to front, in another order than its own */
	assert_int_equal(peer_do(f->peer, PEER_BREAK_HUGE, 0, 0), 0);
	assert_int_equal(peer_do(f->peer, PEER_MAP, 0, STORED), 0);
	for (size_t at = STORED; at; at -= PAGE)
		peer_do(f->peer, PEER_DISCARD, at - PAGE, PAGE);
	for (size_t at = STORED; at; at -= PAGE)
		peer_with(f->peer, PEER_TOUCH, at - PAGE, PAGE, 1);
	index = foreign_take(f, 0, STORED);
	assert_true(foreign_write_in_place(f, 0, STORED / 2));
	assert_true(foreign_read_in_place(f, PAGE, STORED - PAGE));
	assert_last(&f->s, (int)index, PAGE);
	foreign_end(f);
}

static void huge_pages_are_taken_as_well(void **state)
{
	struct foreign *f = foreign_start(8 * HUGE);

	(void)state;
	(void)foreign_take(f, HUGE, 4 * HUGE);
	assert_true(foreign_read_in_place(f, HUGE + 512 * 1024, 512 * 1024));
	foreign_end(f);
}

static void what_is_unregistered_is_gone(void **state)
{
	struct foreign *f = foreign_start(MEM);
	unsigned int index = foreign_take(f, 0, 8 * PAGE);

	(void)state;
	assert_true(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(foreign_reg(f, 4 * PAGE, PAGE), -EEXIST);
	assert_true(foreign_is_mapped(f, index, 0));
	assert_int_equal(abi_unreg(&f->s, index), 0);
	assert_int_equal(foreign_flags(f, index), 0);
	assert_false(foreign_is_mapped(f, index, 0));
	assert_false(foreign_read_in_place(f, 0, PAGE));
	assert_int_equal(abi_unreg(&f->s, index), -ENOENT);
	/* the mapping is of the index, whatever gets it next */
	assert_int_equal(foreign_take(f, 16 * PAGE, 8 * PAGE), index);
	assert_true(foreign_write_in_place(f, 16 * PAGE, PAGE));
	assert_false(foreign_was_told(f));
	foreign_end(f);
}

static void unregistering_waits_for_its_requests(void **state)
{
	struct foreign *f = foreign_start(MEM);
	struct unreg_call call = { .s = &f->s, .index = foreign_take(f, 0, 8 * PAGE), .res = 1 };
	pthread_t thread;

	(void)state;
	memset(f->stored, 0x33, PAGE);
	f->s.hold = true;
	peer_do(f->peer, PEER_BEGIN_READ, 0, PAGE);
	while (!f->s.nr_held)
		usleep(1000);
	pthread_create(&thread, NULL, unreg_thread, &call);
	while (!(foreign_flags(f, call.index) & UAPI_SHMEM_BUF_DYING))
		usleep(1000);
	usleep(50000);
	assert_int_equal(call.res, 1);
	assert_true(foreign_is_mapped(f, call.index, PAGE - 1));
	f->s.hold = false;
	assert_int_equal(peer_do(f->peer, PEER_END_READ, 0, 0), PAGE);
	pthread_join(thread, NULL);
	assert_int_equal(call.res, 0);
	assert_false(foreign_is_mapped(f, call.index, 0));
	assert_int_equal(peer_with(f->peer, PEER_SAME, 0, PAGE, 0x33), 1);
	foreign_end(f);
}

static void *map_of(struct foreign *f, uint64_t offset, size_t len, int prot, int flags)
{
	return mmap(NULL, len, prot, flags, f->s.char_fd, (off_t)(UAPI_FOREIGN_OFFSET + offset));
}

static void mapping_refuses_what_is_malformed(void **state)
{
	struct foreign *f = foreign_start(MEM);
	const int rw = PROT_READ | PROT_WRITE;
	char *map;

	(void)state;
	(void)foreign_take(f, 0, MEM);
	assert_ptr_equal(map_of(f, 0, PAGE, rw, MAP_PRIVATE), MAP_FAILED);
	assert_ptr_equal(map_of(f, 0, PAGE, rw | PROT_EXEC, MAP_SHARED), MAP_FAILED);
	assert_ptr_equal(map_of(f, (1ULL << 32) - PAGE, 2 * PAGE, rw, MAP_SHARED), MAP_FAILED);
	assert_ptr_equal(map_of(f, 1ULL << 48, PAGE, rw, MAP_SHARED), MAP_FAILED);
	/* an index without a buffer can be mapped, and has no memory */
	f->maps[3] = map_of(f, 3ULL << 32, STORED, rw, MAP_SHARED);
	assert_ptr_not_equal(f->maps[3], MAP_FAILED);
	assert_false(foreign_is_mapped(f, 3, 0));
	/* nor has the index of a buffer that is the server's own */
	map = shared_pages(1);
	assert_int_equal(abi_reg(&f->s, map, PAGE, 0), 1);
	f->maps[1] = map_of(f, 1ULL << 32, STORED, rw, MAP_SHARED);
	assert_ptr_not_equal(f->maps[1], MAP_FAILED);
	assert_false(foreign_is_mapped(f, 1, 0));
	assert_int_equal(mprotect(f->maps[0], PAGE, PROT_READ | PROT_EXEC), -1);
	munmap(map, PAGE);
	foreign_end(f);
}

static void registering_refuses_what_is_malformed(void **state)
{
	struct foreign *f = foreign_start(MEM);
	struct abi_server *s = &f->s;
	const uint64_t mem = (uintptr_t)f->peer->mem;
	const pid_t pid = f->peer->pid;
	struct uapi_shmem_foreign_reg reg = { mem, PAGE, (uint32_t)pid, -1, 1 };

	(void)state;
	assert_int_equal(reg_any(s, mem, 0, pid, -1), -EINVAL);
	assert_int_equal(reg_any(s, mem + 512, PAGE, pid, -1), -EINVAL);
	assert_int_equal(reg_any(s, mem, PAGE + 512, pid, -1), -EINVAL);
	assert_int_equal(reg_any(s, mem, (1ULL << 32) + PAGE, pid, -1), -EINVAL);
	assert_int_equal(reg_any(s, -PAGE, PAGE, pid, -1), -EINVAL);
	assert_int_equal(reg_any(s, -PAGE, 2 * PAGE, pid, -1), -EINVAL);
	assert_int_equal(reg_any(s, 1ULL << 47, PAGE, pid, -1), -EINVAL);
	assert_int_equal(
		abi_command(s, UAPI_CMD_REG_FOREIGN, s->device, (uintptr_t)&reg, sizeof(reg), 0),
		-EINVAL);
	reg.reserved = 0;
	assert_int_equal(abi_command(s, UAPI_CMD_REG_FOREIGN, s->device, (uintptr_t)&reg,
				     sizeof(reg) - 1, 0),
			 -EINVAL);
	assert_int_equal(abi_command(s, UAPI_CMD_REG_FOREIGN, s->device, 8, sizeof(reg), 0),
			 -EFAULT);
	assert_int_equal(reg_any(s, mem, PAGE, pid, 1000), -EBADF);
	assert_int_equal(reg_any(s, mem, PAGE, pid, s->char_fd), -EINVAL);
	assert_int_equal(reg_any(s, mem, PAGE, pid, -2), -EBADF);
	/* no such process; the kernel's own */
	assert_int_equal(reg_any(s, mem, PAGE, 0, -1), -ESRCH);
	assert_int_equal(reg_any(s, mem, PAGE, INT32_MAX, -1), -ESRCH);
	assert_int_equal(reg_any(s, mem, PAGE, 2, -1), -ESRCH);
	assert_int_equal(foreign_flags(f, 0), 0);
	foreign_end(f);
}

/* The test's own process will do as well as another. */
static void only_private_memory_that_is_there_is_taken(void **state)
{
	struct foreign *f = foreign_start(MEM);
	const int rw = PROT_READ | PROT_WRITE;
	int file = memory_file(4 * PAGE, 0);
	uint8_t *shared = shared_pages(4);
	uint8_t *of_file = mmap(NULL, 4 * PAGE, rw, MAP_PRIVATE, file, 0);
	uint8_t *mem = mmap(NULL, 8 * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile uint8_t seen;

	(void)state;
	memset(shared, 1, 4 * PAGE);
	memset(of_file, 1, 4 * PAGE);
	assert_int_equal(reg_any(&f->s, (uintptr_t)shared, PAGE, getpid(), -1), -EINVAL);
	assert_int_equal(reg_any(&f->s, (uintptr_t)of_file, PAGE, getpid(), -1), -EINVAL);
	/* nothing is allocated: neither where nothing is nor for the page of zeroes */
	memset(mem, 1, 4 * PAGE);
	seen = mem[5 * PAGE];
	assert_int_equal(seen, 0);
	assert_int_equal(reg_any(&f->s, (uintptr_t)mem, 5 * PAGE, getpid(), -1), -ENODATA);
	assert_int_equal(reg_any(&f->s, (uintptr_t)mem + 5 * PAGE, PAGE, getpid(), -1), -ENODATA);
	/* a hole, or something else, in the middle */
	munmap(mem + PAGE, PAGE);
	assert_int_equal(reg_any(&f->s, (uintptr_t)mem, 4 * PAGE, getpid(), -1), -EINVAL);
	assert_int_equal(reg_any(&f->s, (uintptr_t)mem, PAGE, getpid(), -1), 0);
	assert_int_equal(mprotect(mem + 2 * PAGE, PAGE, PROT_READ), 0);
	assert_int_equal(reg_any(&f->s, (uintptr_t)mem + 2 * PAGE, PAGE, getpid(), -1), -ENODATA);
	munmap(mem, 8 * PAGE);
	munmap(of_file, 4 * PAGE);
	munmap(shared, 4 * PAGE);
	close(file);
	foreign_end(f);
}

/* Neither the parent's nor the child's, while both have it: only after a write of its own. */
static void memory_shared_by_a_fork_is_not_taken(void **state)
{
	struct foreign *f = foreign_start(MEM);

	(void)state;
	assert_int_equal(peer_do(f->peer, PEER_FORK, 0, 0), 0);
	assert_int_equal(foreign_reg(f, 0, 4 * PAGE), -ENODATA);
	peer_with(f->peer, PEER_TOUCH, 0, 4 * PAGE, 1);
	(void)foreign_take(f, 0, 4 * PAGE);
	assert_true(foreign_read_in_place(f, 0, 4 * PAGE));
	assert_int_equal(peer_with(f->peer, PEER_CHILD_SAME, 0, 4 * PAGE, 0), 1);
	foreign_end(f);
}

static void lose_capability(unsigned int capability)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	assert_int_equal(syscall(SYS_capget, &head, data), 0);
	data[0].effective &= ~(1U << capability);
	data[0].permitted &= ~(1U << capability);
	assert_int_equal(syscall(SYS_capset, &head, data), 0);
}

static void only_the_privileged_may(void **state)
{
	struct foreign *f = foreign_start(MEM);
	const unsigned int capabilities[] = { CAP_SYS_PTRACE, CAP_SYS_ADMIN };

	(void)state;
	for (int i = 0; i < 2; i++) {
		int status = -1;
		pid_t pid = fork();

		if (pid == 0) {
			lose_capability(capabilities[i]);
			_exit(foreign_reg(f, 0, PAGE) != -EPERM);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	assert_int_equal(foreign_reg(f, 0, PAGE), 0);
	foreign_end(f);
}

static int users_device_is_refused(struct both *b)
{
	const uint64_t wanted[] = { UAPI_F_SHMEM_FOREIGN, UAPI_F_SHMEM_HINTS };

	for (int i = 0; i < 2; i++) {
		struct ublksrv_ctrl_dev_info info = {
			.nr_hw_queues = 1,
			.queue_depth = ABI_DEPTH,
			.max_io_buf_bytes = ABI_IO_BYTES,
			.dev_id = UINT32_MAX,
			.flags = UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_UNPRIVILEGED_DEV |
				 UBLK_F_SHMEM_ZC | UAPI_F_SHMEM_LIST | wanted[i],
		};

		EXPECT(abi_command(&b->s, UBLK_U_CMD_ADD_DEV, UINT32_MAX, (uintptr_t)&info,
				   sizeof(info), 0),
		       -EINVAL);
	}
	return 0;
}

static void users_devices_cannot_have_it(void **state)
{
	struct both *b;

	(void)state;
	requires_foreign();
	b = shared_pages(sizeof(*b) / PAGE);
	assert_int_equal(ctrl_open(&b->s.ctrl), 0);
	as_user(USER, users_device_is_refused, b);
	ctrl_close(&b->s.ctrl);
	munmap(b, sizeof(*b));
}

static long long memory_available(void)
{
	long long kib = -1;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "r");

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %lld", &kib) == 1)
			break;
	fclose(file);
	return kib;
}

/* References are counted nowhere: what is not given back is missing. */
static void nothing_is_kept(void **state)
{
	const size_t len = 32UL << 20;
	struct foreign *f = foreign_start(len);
	long long before = 0;

	(void)state;
	for (int i = 0; i < 24; i++) {
		unsigned int index = foreign_take(f, 0, len);

		if (i % 2 == 0) {
			peer_do(f->peer, PEER_DISCARD, 0, len);
			foreign_wait_ended(f, index);
			peer_with(f->peer, PEER_TOUCH, 0, len, 1);
		}
		assert_int_equal(abi_unreg(&f->s, index), 0);
		if (i == 3)
			before = memory_available();
	}
	for (int i = 0; i < 100 && before - memory_available() > 100 << 10; i++)
		usleep(50000);
	assert_true(before - memory_available() < 100 << 10);
	foreign_end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_must_be_asked_for),
		cmocka_unit_test(data_is_right_both_ways),
		cmocka_unit_test(memory_in_pieces_is_one_buffer),
		cmocka_unit_test(huge_pages_are_taken_as_well),
		cmocka_unit_test(what_is_unregistered_is_gone),
		cmocka_unit_test(unregistering_waits_for_its_requests),
		cmocka_unit_test(mapping_refuses_what_is_malformed),
		cmocka_unit_test(registering_refuses_what_is_malformed),
		cmocka_unit_test(only_private_memory_that_is_there_is_taken),
		cmocka_unit_test(memory_shared_by_a_fork_is_not_taken),
		cmocka_unit_test(only_the_privileged_may),
		cmocka_unit_test(users_devices_cannot_have_it),
		cmocka_unit_test(nothing_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
