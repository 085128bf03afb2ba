/* SPDX-License-Identifier: MIT */
/* waiters.c - see waiters.h. */
#include "waiters.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arena.h"
#include "common/log.h"
#include "procdir.h"
#include "sys.h"
#include "vmas.h"

#define ROUNDS 3 /* a thread may just be on its way into the call */

/* Through its file, under the name that it had. */
static bool wake_at(const struct vma *v, void *arg)
{
	uintptr_t address = *(const uintptr_t *)arg;
	const struct arena *a = arena_of_file(v->dev, v->ino, v->offset);
	size_t within = address % ARENA_GRANULE;
	long map;

	if (!a || !memfile_valid(&a->file))
		return false;
	map = sys_mmap(NULL, ARENA_GRANULE, PROT_READ | PROT_WRITE, MAP_SHARED, a->file.fd,
		       (off_t)v->offset);
	if (sys_is_error(map))
		return false;
	sys_call(SYS_futex, map + (long)within, FUTEX_WAKE, INT_MAX, 0, 0, 0);
	sys_munmap((void *)map, ARENA_GRANULE);
	return false;
}

/* "202 0x7f... ..." of a thread that waits: the call, its arguments. */
static bool futex_address(const char *text, uintptr_t *ret)
{
	*ret = 0;
	if (text[0] != '2' || text[1] != '0' || text[2] != '2' || text[3] != ' ' || text[4] != '0')
		return false;
	for (text += 6; *text && *text != ' '; text++)
		*ret = *ret * 16 + (uintptr_t)(*text <= '9' ? *text - '0' : *text - 'a' + 10);
	return true;
}

static const char *look_at_thread(int dir, const char *name, void *arg)
{
	char path[48];
	char text[128];
	uintptr_t address;
	long fd, len;

	log_format(path, sizeof(path), "%s/syscall", name);
	fd = sys_call(SYS_openat, dir, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return NULL;
	len = sys_call(SYS_read, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
	sys_close((int)fd);
	text[len > 0 ? len : 0] = 0;
	if (text[0] == 'r') /* running */
		(*(unsigned int *)arg)++;
	else if (futex_address(text, &address))
		vmas_each((void *)(address & ~(ARENA_GRANULE - 1)), ARENA_GRANULE, wake_at,
			  &address);
	return NULL;
}

void waiters_wake(void)
{
	unsigned int running = 2;
	const char *none;

	/* This thread is running, of course. */
	for (int i = 0; i < ROUNDS && running > 1; i++) {
		running = 0;
		if (i)
			sys_call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
		procdir_each("task", look_at_thread, &running, &none);
	}
}
