/* SPDX-License-Identifier: MIT */
/*
 * blkdev.c - walk sysfs from a device number down to ublk disks.
 *
 * Breadth first over a small fixed array: a node is a "MAJ:MIN" string.  A
 * disk called ublkbN ends the walk; a partition leads to its parent; dm, md
 * and the like lead to everything in their "slaves" folder.  Loop devices
 * are not followed: their I/O reaches the lower disk from kernel threads
 * with pages of the loop device's clients, which may match or not, but a
 * descriptor of the loop device is no proof of access to the disk below.
 *
 * Any trouble while walking is an error for the caller, never a guess.
 */
#include "blkdev.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "blkdev_internal.h"
#include "log.h"

#define NAME_LEN 24 /* "4294967295:4294967295" and a NUL */

struct walk {
	int root; /* descriptor that stands for "/" */
	unsigned int nr;
	char nodes[BLKDEV_NODES_MAX][NAME_LEN];
	unsigned char depth[BLKDEV_NODES_MAX];
	struct blkdev_ublk *ret;
};

struct dirent64_raw {
	uint64_t d_ino;
	int64_t d_off;
	unsigned short d_reclen;
	unsigned char d_type;
	char d_name[];
};

static int open_at(int dir, const char *path, int flags)
{
	long fd = syscall(SYS_openat, dir, path, flags | O_CLOEXEC, 0);

	return fd < 0 ? -errno : (int)fd;
}

static void close_raw(int fd)
{
	if (fd >= 0)
		syscall(SYS_close, fd);
}

/* Reads a small file; strips the newline.  Returns its length or -errno. */
static long read_at(int dir, const char *path, char *buf, size_t size)
{
	int fd = open_at(dir, path, O_RDONLY);
	long len;

	if (fd < 0)
		return fd;
	len = syscall(SYS_read, fd, buf, size - 1);
	if (len < 0)
		len = -errno;
	close_raw(fd);
	if (len < 0)
		return len;
	while (len > 0 && buf[len - 1] == '\n')
		len--;
	buf[len] = '\0';
	return len;
}

static int add_node(struct walk *w, const char *name, unsigned int depth)
{
	size_t len = strlen(name);

	for (unsigned int i = 0; i < w->nr; i++)
		if (strcmp(w->nodes[i], name) == 0)
			return 0;
	if (w->nr == BLKDEV_NODES_MAX || depth > BLKDEV_DEPTH_MAX)
		return -ELOOP;
	if (len >= NAME_LEN)
		return -EINVAL;
	memcpy(w->nodes[w->nr], name, len + 1);
	w->depth[w->nr++] = (unsigned char)depth;
	return 0;
}

static int add_ublk(struct walk *w, unsigned int id)
{
	for (unsigned int i = 0; i < w->ret->nr; i++)
		if (w->ret->ids[i] == id)
			return 0;
	if (w->ret->nr == BLKDEV_UBLK_MAX)
		return -ENOSPC;
	w->ret->ids[w->ret->nr++] = id;
	return 0;
}

/* "ublkb12" -> 12; anything else, also "ublkb12p1" -> -1 */
static long parse_ublk_name(const char *name)
{
	unsigned long id = 0;
	const char *s = name + 5;

	if (strncmp(name, "ublkb", 5) != 0 || !*s)
		return -1;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || id > 1000000)
			return -1;
		id = id * 10 + (unsigned long)(*s - '0');
	}
	return (long)id;
}

static int add_dev_file(struct walk *w, int dir, const char *path, unsigned int depth)
{
	char name[NAME_LEN];
	long len = read_at(dir, path, name, sizeof(name));

	return len < 0 ? (int)len : add_node(w, name, depth);
}

static int visit_slaves(struct walk *w, int node, unsigned int depth)
{
	_Alignas(struct dirent64_raw) char buf[2048];
	int dir = open_at(node, "slaves", O_RDONLY | O_DIRECTORY);
	char path[300];
	long len;
	int ret = 0;

	if (dir == -ENOENT)
		return 0;
	if (dir < 0)
		return dir;
	while (!ret && (len = syscall(SYS_getdents64, dir, buf, sizeof(buf))) != 0) {
		if (len < 0) {
			ret = -errno;
			break;
		}
		for (long at = 0; at < len && !ret;) {
			struct dirent64_raw *entry = (void *)(buf + at);

			at += entry->d_reclen;
			if (entry->d_name[0] == '.')
				continue;
			log_format(path, sizeof(path), "%s/dev", entry->d_name);
			ret = add_dev_file(w, dir, path, depth);
		}
	}
	close_raw(dir);
	return ret;
}

/* The name of a node is the last part of where its sysfs link points. */
static int read_name(int root, const char *path, char *ret_name, size_t size)
{
	char target[512];
	long len = syscall(SYS_readlinkat, root, path, target, sizeof(target) - 1);
	const char *name;
	size_t name_len;

	if (len < 0)
		return -errno;
	target[len] = '\0';
	name = strrchr(target, '/');
	name = name ? name + 1 : target;
	name_len = strlen(name);
	if (name_len >= size)
		return -ENAMETOOLONG;
	memcpy(ret_name, name, name_len + 1);
	return 0;
}

static int visit(struct walk *w, unsigned int idx)
{
	char path[64];
	char name[256];
	char ignored[16];
	unsigned int depth = w->depth[idx] + 1U;
	long id;
	int node;
	int ret;

	log_format(path, sizeof(path), "sys/dev/block/%s", w->nodes[idx]);
	ret = read_name(w->root, path, name, sizeof(name));
	if (ret < 0)
		return ret;
	id = parse_ublk_name(name);
	if (id >= 0)
		return add_ublk(w, (unsigned int)id);
	node = open_at(w->root, path, O_RDONLY | O_DIRECTORY);
	if (node < 0)
		return node;
	if (read_at(node, "partition", ignored, sizeof(ignored)) >= 0)
		ret = add_dev_file(w, node, "../dev", depth);
	else
		ret = visit_slaves(w, node, depth);
	close_raw(node);
	return ret;
}

static void start_walk(struct walk *w, int root, struct blkdev_ublk *ret)
{
	w->root = root;
	w->nr = 0;
	w->ret = ret;
	ret->nr = 0;
}

static int finish_walk(struct walk *w)
{
	int ret = 0;

	for (unsigned int i = 0; i < w->nr && !ret; i++)
		ret = visit(w, i);
	return ret;
}

int blkdev_find_ublk_at(int root, dev_t dev, struct blkdev_ublk *ret)
{
	struct walk w;
	char name[NAME_LEN];

	start_walk(&w, root, ret);
	log_format(name, sizeof(name), "%u:%u", major(dev), minor(dev));
	add_node(&w, name, 0);
	return finish_walk(&w);
}

/* ---- file systems whose st_dev is no block device (btrfs) ---- */

/* Next space-separated field of a mountinfo line; NULL at its end. */
static char *next_field(char **line)
{
	char *start = *line;
	char *end;

	if (!start || !*start)
		return NULL;
	end = strchr(start, ' ');
	if (end)
		*end++ = '\0';
	*line = end;
	return start;
}

/*
 * The source device of one mountinfo line (proc(5)) when it is mount @id of
 * btrfs: field 1 and, behind the "-", fields 1 and 2.  By mount id, because the
 * st_dev of a file in a btrfs subvolume stands nowhere in mountinfo.  Of btrfs
 * only, because elsewhere the source is a mere name: any user may mount a FUSE
 * file system called "/dev/ublkb0", which proves no access to that disk.
 */
static const char *mount_source(char *line, const char *id)
{
	char *field = next_field(&line);

	if (!field || strcmp(field, id) != 0)
		return NULL;
	while (field && strcmp(field, "-") != 0)
		field = next_field(&line);
	field = next_field(&line);
	return field && strcmp(field, "btrfs") == 0 ? next_field(&line) : NULL;
}

static int add_source(struct walk *w, const char *source)
{
	struct stat st;
	char name[NAME_LEN];

	while (*source == '/')
		source++;
	if (syscall(SYS_newfstatat, w->root, source, &st, 0) < 0)
		return -errno;
	if (!S_ISBLK(st.st_mode))
		return 0;
	log_format(name, sizeof(name), "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	return add_node(w, name, 0);
}

/* Takes the complete lines at @buf, returns the bytes used. */
static long take_lines(struct walk *w, char *buf, long len, const char *id, int *ret)
{
	long used = 0;

	for (;;) {
		char *line = buf + used;
		char *end = memchr(line, '\n', (size_t)(len - used));
		const char *source;

		if (!end)
			return used;
		*end = '\0';
		used = end + 1 - buf;
		source = mount_source(line, id);
		if (source && source[0] == '/')
			*ret = add_source(w, source);
	}
}

int blkdev_find_mount_at(int root, unsigned long long mount_id, struct blkdev_ublk *ret)
{
	char buf[4096];
	char name[NAME_LEN];
	struct walk w;
	long have = 0;
	int err = 0;
	int fd = open_at(root, "proc/self/mountinfo", O_RDONLY);

	if (fd < 0)
		return fd;
	start_walk(&w, root, ret);
	log_format(name, sizeof(name), "%llu", mount_id);
	for (;;) {
		long len = syscall(SYS_read, fd, buf + have, sizeof(buf) - (size_t)have);
		long used;

		if (len <= 0)
			break;
		have += len;
		used = take_lines(&w, buf, have, name, &err);
		if (!used && have == (long)sizeof(buf))
			used = have; /* a line longer than the buffer: not ours */
		memmove(buf, buf + used, (size_t)(have - used));
		have -= used;
	}
	close_raw(fd);
	return err ? err : finish_walk(&w);
}

static int open_root(void)
{
	return open_at(AT_FDCWD, "/", O_PATH | O_DIRECTORY);
}

int blkdev_find_ublk(dev_t dev, struct blkdev_ublk *ret)
{
	int root;
	int err;

	ret->nr = 0;
	if (!major(dev))
		return 0; /* anonymous: tmpfs, overlay, a network file system ... */
	root = open_root();
	if (root < 0)
		return root;
	err = blkdev_find_ublk_at(root, dev, ret);
	close_raw(root);
	return err;
}

/* A file whose st_dev is no block device: ask which mount it lives on. */
static int find_by_mount(int fd, struct blkdev_ublk *ret)
{
	struct statx stx = { 0 };
	int root;
	int err;

	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &stx) < 0)
		return -errno;
	if (!(stx.stx_mask & STATX_MNT_ID))
		return 0; /* before Linux 5.8 */
	root = open_root();
	if (root < 0)
		return root;
	err = blkdev_find_mount_at(root, stx.stx_mnt_id, ret);
	close_raw(root);
	return err;
}

int blkdev_find_ublk_fd(int fd, struct blkdev_ublk *ret)
{
	struct statx stx = { 0 };

	ret->nr = 0;
	/* Without asking a file system's server (FUSE), who may never answer. */
	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0)
		return -errno;
	if (S_ISBLK(stx.stx_mode))
		return blkdev_find_ublk(makedev(stx.stx_rdev_major, stx.stx_rdev_minor), ret);
	if (!S_ISREG(stx.stx_mode) && !S_ISDIR(stx.stx_mode))
		return -ENOTBLK;
	if (!stx.stx_dev_major)
		return find_by_mount(fd, ret);
	return blkdev_find_ublk(makedev(stx.stx_dev_major, stx.stx_dev_minor), ret);
}
