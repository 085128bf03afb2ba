/* SPDX-License-Identifier: MIT */
/* vmas.c - see vmas.h. */
#include "vmas.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "arena.h"
#include "common/log.h"
#include "memfile.h"
#include "shim.h"
#include "sys.h"

/* PROCMAP_QUERY, of <linux/fs.h> from 6.11 on. */
struct query {
	uint64_t size, flags, addr;
	uint64_t start, end, vma_flags, page_size, offset, inode;
	uint32_t major, minor;
	uint32_t name_size, build_id_size;
	uint64_t name, build_id;
};
#define QUERY_IOCTL _IOWR('f', 17, struct query)
#define QUERY_READABLE 0x01
#define QUERY_WRITABLE 0x02
#define QUERY_EXECUTABLE 0x04
#define QUERY_SHARED 0x08
#define QUERY_OR_NEXT 0x10
#define QUERY_FILE_BACKED 0x20

#define ADDRESSES ((uintptr_t)1 << 56) /* all that a program can have mapped */
#define FEW 64U			       /* mappings for which no memory is needed */

struct list {
	struct vma few[FEW];
	struct vma *at;
	size_t nr, room;
};

static struct memfile proc = { .fd = -1 };

bool vmas_keep_proc(void)
{
	struct stat st;
	long fd;

	if (memfile_valid(&proc))
		return true;
	fd = sys_call(SYS_openat, AT_FDCWD, (long)"/proc", O_PATH | O_CLOEXEC | O_DIRECTORY, 0, 0,
		      0);
	if (fd < 0)
		return false;
	fd = sys_move_fd_high((int)fd);
	if (sys_fstat((int)fd, &st) == 0)
		proc = (struct memfile){ (int)fd, st.st_dev, st.st_ino };
	if (vmas_can_ask())
		return true;
	memfile_close(&proc); /* a folder of that name only */
	return false;
}

bool vmas_can_ask(void)
{
	int fd = vmas_open_proc("maps");

	if (fd >= 0)
		sys_close(fd);
	return fd >= 0;
}

int vmas_open_proc(const char *name)
{
	char path[64];
	long fd = -EBADF;

	if (memfile_valid(&proc)) {
		log_format(path, sizeof(path), "self/%s", name);
		fd = sys_call(SYS_openat, proc.fd, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	}
	if (fd < 0) {
		log_format(path, sizeof(path), "/proc/self/%s", name);
		fd = sys_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	}
	return (int)fd;
}

/* ---- the list ---- */

static bool list_grow(struct list *l)
{
	size_t room = l->room * 4;
	long map = sys_mmap(NULL, room * sizeof(*l->at), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (sys_is_error(map))
		return false;
	memcpy((void *)map, l->at, l->nr * sizeof(*l->at));
	if (l->at != l->few)
		sys_munmap(l->at, l->room * sizeof(*l->at));
	l->at = (struct vma *)map;
	l->room = room;
	return true;
}

static void list_free(struct list *l)
{
	if (l->at != l->few)
		sys_munmap(l->at, l->room * sizeof(*l->at));
}

/* The part of @v in [@start, @end), if it is ours. */
static int list_add(struct list *l, struct vma v, char *start, char *end)
{
	char *v_end = v.start + v.len;

	if (!v.ino || v.start >= end || v_end <= start || !arena_file_is_ours(v.dev, v.ino))
		return 0;
	if (l->nr == l->room && !list_grow(l))
		return -ENOMEM;
	if (v.start < start) {
		v.offset += (uint64_t)(start - v.start);
		v.start = start;
	}
	v.len = (size_t)((v_end < end ? v_end : end) - v.start);
	l->at[l->nr++] = v;
	return 0;
}

/* ---- asking ---- */

/* First for any mapping: a small range mostly is one, and from a private one on the kernel would
 * look for one of a file far behind the range. */
static int ask_by_ioctl(int fd, uint64_t which, struct list *l, char *start, char *end)
{
	uint64_t at = (uintptr_t)start;
	uint64_t filter = at ? 0 : QUERY_FILE_BACKED;

	while (at < (uintptr_t)end) {
		struct query q = { .size = sizeof(q),
				   .flags = QUERY_OR_NEXT | filter | which,
				   .addr = at };
		long ret = sys_call(SYS_ioctl, fd, QUERY_IOCTL, (long)&q, 0, 0, 0);
		struct vma v;

		if (ret == -ENOENT)
			return 0;
		if (ret < 0)
			return (int)ret;
		v = (struct vma){
			.start = (char *)(uintptr_t)q.start,
			.len = q.end - q.start,
			.offset = q.offset,
			.dev = makedev(q.major, q.minor),
			.ino = q.inode,
			.prot = (q.vma_flags & QUERY_READABLE ? PROT_READ : 0) |
				(q.vma_flags & QUERY_WRITABLE ? PROT_WRITE : 0) |
				(q.vma_flags & QUERY_EXECUTABLE ? PROT_EXEC : 0),
			.shared = (q.vma_flags & QUERY_SHARED) != 0,
		};
		ret = list_add(l, v, start, end);
		if (ret)
			return (int)ret;
		at = q.end;
		filter = QUERY_FILE_BACKED;
	}
	return 0;
}

static unsigned long long number(const char **p, unsigned int base)
{
	unsigned long long n = 0;

	for (;; (*p)++) {
		unsigned int digit = (unsigned int)(**p - '0');

		if (digit > 9)
			digit = (unsigned int)(**p - 'a') + 10;
		if (digit >= base)
			break;
		n = n * base + digit;
	}
	(*p)++; /* what ends it */
	return n;
}

/* 7f1c00000000-7f1c00021000 rw-s 00000000 00:01 1024    /memfd:name (deleted) */
static struct vma parse(const char *line)
{
	struct vma v = { .start = (char *)(uintptr_t)number(&line, 16) };
	unsigned int major;

	v.len = (size_t)(number(&line, 16) - (uintptr_t)v.start);
	v.prot = (line[0] == 'r' ? PROT_READ : 0) | (line[1] == 'w' ? PROT_WRITE : 0) |
		 (line[2] == 'x' ? PROT_EXEC : 0);
	v.shared = line[3] == 's';
	line += 5;
	v.offset = number(&line, 16);
	major = (unsigned int)number(&line, 16);
	v.dev = makedev(major, (unsigned int)number(&line, 16));
	v.ino = number(&line, 10);
	return v;
}

static int ask_by_reading(int fd, struct list *l, char *start, char *end)
{
	char buf[4096 + 1];
	size_t have = 0;

	for (;;) {
		long len = sys_call(SYS_read, fd, (long)(buf + have), (long)(4096 - have), 0, 0, 0);
		char *line = buf;
		char *newline;

		if (len <= 0)
			return (int)len;
		have += (size_t)len;
		buf[have] = 0;
		while ((newline = strchr(line, '\n'))) {
			int ret;

			*newline = 0;
			ret = list_add(l, parse(line), start, end);
			if (ret)
				return ret;
			line = newline + 1;
		}
		have -= (size_t)(line - buf);
		if (have == 4096) /* a line longer than all: only a path can be */
			have = 0;
		memmove(buf, line, have);
	}
}

/*
 * No /proc, as in a chroot: then as it was when we mapped it.  Blocks lie where only we
 * map anything; and a region counts while nothing of it was unmapped or replaced.
 */
static int ask_nobody(struct list *l, char *start, char *end)
{
	int ret = 0;

	for (unsigned int i = 0; i < arena_slots && !ret; i++) {
		const struct arena *a = &arenas[i];

		if (a->state == ARENA_EMPTY || a->pierced)
			continue;
		ret = list_add(l,
			       (struct vma){ .start = a->base,
					     .len = a->len,
					     .offset = a->offset,
					     .dev = a->file.dev,
					     .ino = a->file.ino,
					     .prot = PROT_READ | PROT_WRITE,
					     .shared = a->state == ARENA_SHARED },
			       start, end);
	}
	return ret;
}

static int ask_in_words(struct list *l, char *start, char *end)
{
	int fd = vmas_open_proc("maps");
	int ret;

	if (fd < 0)
		return fd;
	l->nr = 0;
	ret = ask_by_reading(fd, l, start, end);
	sys_close(fd);
	return ret;
}

/*
 * The file of mappings, kept open: to open it takes longer than to ask.  It is about the
 * process that opened it, so a child must not use its parent's.
 */
static _Atomic int maps_fd = -1;
static _Atomic ino_t maps_ino;

static int open_maps(bool *ret_kept)
{
	int fd = maps_fd;
	struct stat st;

	*ret_kept = shim_is_owner();
	if (*ret_kept && fd >= 0 && sys_fstat(fd, &st) == 0 && st.st_ino == maps_ino)
		return fd;
	fd = vmas_open_proc("maps");
	*ret_kept = *ret_kept && fd >= 0 && maps_fd < 0;
	if (!*ret_kept)
		return fd;
	fd = sys_move_fd_high(fd);
	*ret_kept = fd >= 0 && sys_fstat(fd, &st) == 0;
	if (*ret_kept) {
		int none = -1;

		maps_ino = st.st_ino;
		*ret_kept = atomic_compare_exchange_strong(&maps_fd, &none, fd);
	}
	return fd;
}

void vmas_forget(void)
{
	struct stat st;
	int fd = atomic_exchange(&maps_fd, -1);

	if (fd >= 0 && sys_fstat(fd, &st) == 0 && st.st_ino == maps_ino)
		sys_close(fd);
}

static int ask_kernel(uint64_t which, struct list *l, char *start, char *end)
{
	bool kept;
	int fd = open_maps(&kept);
	int ret = fd < 0 ? fd : ask_by_ioctl(fd, which, l, start, end);

	if (fd >= 0 && !kept)
		sys_close(fd);
	if (ret < 0 && ret != -ENOMEM)
		ret = ask_in_words(l, start, end);
	return ret;
}

static int ask(struct list *l, char *start, char *end)
{
	int ret = ask_kernel(0, l, start, end);

	if (ret < 0 && ret != -ENOMEM) {
		l->nr = 0;
		ret = ask_nobody(l, start, end);
	}
	return ret;
}

static void list_init(struct list *l)
{
	l->at = l->few;
	l->nr = 0;
	l->room = FEW;
}

static void list_tell(struct list *l, bool (*each)(const struct vma *v, void *arg), void *arg)
{
	for (size_t i = 0; i < l->nr; i++)
		if (!each(&l->at[i], arg))
			break;
}

int vmas_each(const void *addr, size_t len, bool (*each)(const struct vma *v, void *arg), void *arg)
{
	char *start = (char *)(uintptr_t)addr;
	struct list l;
	int ret;

	list_init(&l);
	ret = ask(&l, start, start + len);
	if (!ret)
		list_tell(&l, each, arg);
	list_free(&l);
	return ret;
}

int vmas_each_shared(bool (*each)(const struct vma *v, void *arg), void *arg)
{
	struct list l;
	int ret;

	list_init(&l);
	ret = ask_kernel(QUERY_SHARED, &l, NULL, (char *)ADDRESSES);
	if (!ret)
		list_tell(&l, each, arg);
	list_free(&l);
	return ret;
}
