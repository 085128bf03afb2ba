/* SPDX-License-Identifier: MIT */
/* witness.c - see witness.h.  Called with the lock of lock.h held. */
#include "witness.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arena.h"
#include "memfile.h"
#include "sys.h"

static struct memfile file = { .fd = -1 };
static void *_Atomic page; /* our own mapping, for children to inherit */

static bool map_page(void)
{
	long map = sys_mmap(NULL, ARENA_GRANULE, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);

	page = sys_is_error(map) ? NULL : (void *)map;
	return page != NULL;
}

bool witness_start(void)
{
	struct stat st;
	long fd;

	/* The program has closed our descriptor: those children count for ever. */
	if (file.fd >= 0 && !memfile_valid(&file))
		return false;
	if (page)
		return true;
	fd = sys_call(SYS_memfd_create, (long)"ublkzc:witness", MFD_CLOEXEC | MFD_ALLOW_SEALING, 0,
		      0, 0, 0);
	if (fd < 0)
		return false;
	fd = sys_move_fd_high((int)fd);
	sys_call(SYS_fchmod, fd, 0, 0, 0, 0, 0);
	if (sys_fstat((int)fd, &st) < 0 ||
	    sys_call(SYS_ftruncate, fd, (long)ARENA_GRANULE, 0, 0, 0, 0) < 0) {
		sys_close((int)fd);
		return false;
	}
	file = (struct memfile){ (int)fd, st.st_dev, st.st_ino };
	if (map_page())
		return true;
	memfile_close(&file);
	return false;
}

bool witness_active(void)
{
	return page != NULL;
}

bool witness_gone(void)
{
	if (!page)
		return file.fd < 0;
	if (!memfile_valid(&file))
		return false;
	sys_munmap(page, ARENA_GRANULE);
	page = NULL;
	if (sys_call(SYS_fcntl, file.fd, F_ADD_SEALS, F_SEAL_WRITE, 0, 0, 0) == 0) {
		memfile_close(&file);
		return true;
	}
	map_page(); /* if that fails, it is never over: what is held stays held */
	return false;
}

void witness_forget(void)
{
	memfile_close(&file);
	page = NULL;
}
