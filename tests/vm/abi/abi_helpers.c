/* SPDX-License-Identifier: MIT */
/* abi_helpers.c - see abi_helpers.h. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* kernel-patch/ gives its module a version; the kernel's own has none. */
bool is_ours(void)
{
	char version[64] = "";
	FILE *f = fopen("/sys/module/ublk_drv/version", "r");

	if (!f)
		return false;
	if (!fgets(version, sizeof(version), f))
		version[0] = '\0';
	fclose(f);
	return strstr(version, "-ublkzc\n") != NULL;
}

void *shared_pages(size_t nr)
{
	void *p = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

int memory_file(size_t bytes, unsigned int memfd_flags)
{
	int fd = memfd_create("abi", memfd_flags);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

uint8_t *map_file(int fd, size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

uint64_t frame_of(const void *p)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &entry, 8, (off_t)((uintptr_t)p / PAGE * 8)), 8);
	close(fd);
	return entry & ((1ULL << 55) - 1);
}

uint8_t *map_huge_page(int fd)
{
	uint8_t *hole = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *p = (uint8_t *)(((uintptr_t)hole + HUGE - 1) & ~(HUGE - 1));

	p = mmap(p, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	assert_true(p != MAP_FAILED);
	memset(p, 0, HUGE);
	for (int i = 0; i < 20 && madvise(p, HUGE, MADV_COLLAPSE) && errno == EAGAIN; i++)
		usleep(50000);
	for (size_t at = PAGE; at < HUGE; at += PAGE)
		if (frame_of(p + at) != frame_of(p) + at / PAGE)
			return NULL;
	return p;
}

/* The counters are per processor and folded about once a second, or now. */
static void fold_vmstat(void)
{
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY);

	if (fd < 0 && errno == ENOENT)
		return; /* one processor */
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "1", 1), 1);
	close(fd);
}

long long pinned(void)
{
	FILE *f;
	long long n, balance = 0;
	char name[64];

	fold_vmstat();
	f = fopen("/proc/vmstat", "r");
	assert_non_null(f);
	while (fscanf(f, "%63s %lld", name, &n) == 2) {
		if (strcmp(name, "nr_foll_pin_acquired") == 0)
			balance += n;
		if (strcmp(name, "nr_foll_pin_released") == 0)
			balance -= n;
	}
	fclose(f);
	return balance;
}

void assert_nothing_pinned(void)
{
	for (int i = 0; i < 100 && pinned(); i++)
		usleep(50000);
	assert_int_equal(pinned(), 0);
}

void add_zc(struct abi_server *s)
{
	assert_int_equal(abi_add(s, ZC_FLAGS), 0);
	assert_true(s->flags & UBLK_F_SHMEM_ZC);
}

int reg_raw(struct abi_server *s, uint64_t addr, uint64_t len, uint32_t flags, uint32_t reserved)
{
	struct uapi_shmem_buf_reg reg = { addr, len, flags, reserved };

	return abi_command(s, UBLK_U_CMD_REG_BUF, s->device, (uintptr_t)&reg, sizeof(reg), 0);
}

bool offers_feature(uint64_t bits)
{
	struct ctrl ctrl;
	uint64_t features;

	assert_int_equal(ctrl_open(&ctrl), 0);
	assert_int_equal(ctrl_get_features(&ctrl, &features), 0);
	ctrl_close(&ctrl);
	return (features & bits) == bits;
}

void requires_feature(uint64_t bit)
{
	bool offered = offers_feature(bit);

	if (is_ours())
		assert_true(offered);
	if (offered)
		return;
	print_message("the driver does not offer it (stock)\n");
	skip();
}

void add_with(struct abi_server *s, uint64_t flags)
{
	assert_int_equal(abi_add(s, flags), 0);
	assert_true((s->flags & flags) == flags);
}

#define SERVER_PAGES ((sizeof(struct abi_server) + PAGE - 1) / PAGE)

struct abi_server *start_mortal(uint64_t flags)
{
	struct abi_server *s = shared_pages(SERVER_PAGES);

	add_with(s, flags);
	abi_start_process(s);
	return s;
}

void end_mortal(struct abi_server *s)
{
	abi_del(s);
	munmap(s, SERVER_PAGES * PAGE);
	assert_nothing_pinned();
}

bool read_matches(struct abi_server *s, uint8_t *buf, size_t len)
{
	size_t kept = 0, filled = 0;

	memset(buf, 0x11, len);
	assert_int_equal(pread(s->disk_fd, buf, len, ABI_TEST_OFFSET), len);
	for (size_t i = 0; i < len; i++) {
		kept += buf[i] == 0x11;
		filled += buf[i] == ABI_FILL;
	}
	assert_true(kept == len || filled == len);
	return kept == len;
}

bool write_matches(struct abi_server *s, const uint8_t *buf, size_t len)
{
	assert_int_equal(pwrite(s->disk_fd, buf, len, ABI_TEST_OFFSET), len);
	return (s->last_op_flags & UAPI_IO_F_SHMEM_ZC) != 0;
}

void allow_merging(const struct abi_server *s)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/nomerges", s->device);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "0", 1), 1);
	close(fd);
}

void assert_last(const struct abi_server *s, int index, uint32_t offset)
{
	assert_int_equal(uapi_shmem_index(s->last_addr), index);
	assert_int_equal(uapi_shmem_offset(s->last_addr), offset);
	assert_int_equal(s->last_addr >> 48, 0);
}

void *unreg_thread(void *arg)
{
	struct unreg_call *call = arg;

	call->res = abi_unreg(call->s, call->index);
	return NULL;
}

void *read_thread(void *arg)
{
	struct read_call *call = arg;

	call->res =
		pread(call->s->disk_fd, call->buf, call->len, (off_t)ABI_TEST_OFFSET + call->at);
	return NULL;
}
