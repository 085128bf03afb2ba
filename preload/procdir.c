/* SPDX-License-Identifier: MIT */
/* procdir.c - see procdir.h. */
#include "procdir.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "sys.h"
#include "vmas.h"

/* As the kernel fills it in, for getdents64. */
struct entry {
	uint64_t ino;
	int64_t offset;
	unsigned short len;
	unsigned char type;
	char name[];
};

bool procdir_each(const char *folder, const char *(*each)(int dir, const char *name, void *arg),
		  void *arg, const char **ret)
{
	_Alignas(struct entry) char buf[2048];
	int dir = vmas_open_proc(folder);
	long len;

	*ret = NULL;
	if (dir < 0)
		return false;
	while (!*ret && (len = sys_call(SYS_getdents64, dir, (long)buf, sizeof(buf), 0, 0, 0)) > 0)
		for (long at = 0; at < len && !*ret;) {
			const struct entry *e = (const struct entry *)(buf + at);

			at += e->len;
			if (e->name[0] != '.')
				*ret = each(dir, e->name, arg);
		}
	sys_close(dir);
	return true;
}
