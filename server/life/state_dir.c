/* SPDX-License-Identifier: MIT */
/* state_dir.c - the folders of state files and sockets; libublkzc-server has no more of state.h. */
#include "state.h"

#include <errno.h>
#include <sys/stat.h>

int state_make_dir(const char *dir)
{
	if (mkdir(dir, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	return chmod(dir, 0755) < 0 ? -errno : 0; /* the umask */
}
