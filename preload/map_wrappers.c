/* SPDX-License-Identifier: MIT */
/*
 * map_wrappers.c - the mapping functions the program calls.
 *
 * Each asks whether captured memory is concerned (mappings.h), or memory that
 * the program shares (shared.h).  If not, the next function does it, with the
 * arguments as they came.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blocks.h"
#include "brief.h"
#include "mappings.h"
#include "next.h"
#include "regions.h"
#include "session.h"
#include "shared.h"
#include "stats.h"
#include "sys.h"

#define EXPORT __attribute__((visibility("default")))

/* What libc's functions return and do to errno. */
static int result(long ret)
{
	if (ret >= 0)
		return (int)ret;
	errno = (int)-ret;
	return -1;
}

static void *address(long ret)
{
	if (!sys_is_error(ret))
		return (void *)ret;
	errno = (int)-ret;
	return MAP_FAILED;
}

static bool shares(int flags)
{
	int type = flags & MAP_TYPE;

	return type == MAP_SHARED || type == MAP_SHARED_VALIDATE;
}

static void *real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *p;

	if ((flags & MAP_FIXED) && regions_touch(addr, len))
		p = address(mapping_replace(addr, len, prot, flags, fd, offset));
	else if (next_resolved() && next.mmap)
		p = next.mmap(addr, len, prot, flags, fd, offset);
	else
		p = address(sys_mmap(addr, len, prot, flags, fd, offset));
	if (p != MAP_FAILED && shares(flags) && len >= SHARED_MIN) {
		shared_note(p, len);
		session_offer_memory();
	}
	return p;
}

static bool brief(size_t len)
{
	if (!brief_expected(len))
		return false;
	stat_add(STAT_BRIEF, 1);
	return true;
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	int saved = errno;
	void *p = NULL;

	if (mapping_wanted(len, prot, flags) && offset % (off_t)ARENA_GRANULE == 0)
		p = brief(len) ? NULL : mapping_new(addr, len, prot, flags);
	else if (mapping_would_be_wanted(len, prot, flags))
		stat_add(STAT_MMAP_OFF, 1);
	errno = saved;
	return p ? p : real_mmap(addr, len, prot, flags, fd, offset);
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return mmap(addr, len, prot, flags, fd, offset);
}

EXPORT int munmap(void *addr, size_t len)
{
	int ret;

	if (regions_touch(addr, len))
		ret = result(mapping_unmap(addr, len));
	else if (next_resolved() && next.munmap)
		ret = next.munmap(addr, len);
	else
		ret = result(sys_munmap(addr, len));
	if (!ret)
		shared_gone(addr, len);
	return ret;
}

EXPORT int mprotect(void *addr, size_t len, int prot)
{
	if (regions_touch(addr, len))
		return result(mapping_protect(addr, len, prot, -1));
	if (next_resolved() && next.mprotect)
		return next.mprotect(addr, len, prot);
	return result(sys_call(SYS_mprotect, (long)addr, (long)len, prot, 0, 0, 0));
}

EXPORT int pkey_mprotect(void *addr, size_t len, int prot, int pkey)
{
	if (regions_touch(addr, len))
		return result(mapping_protect(addr, len, prot, pkey));
	if (next_resolved() && next.pkey_mprotect)
		return next.pkey_mprotect(addr, len, prot, pkey);
	return result(sys_call(SYS_pkey_mprotect, (long)addr, (long)len, prot, pkey, 0, 0));
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	if (regions_touch(addr, len))
		return result(mapping_advise(addr, len, advice));
	if (next_resolved() && next.madvise)
		return next.madvise(addr, len, advice);
	return result(sys_madvise(addr, len, advice));
}

EXPORT void *mremap(void *old, size_t old_len, size_t len, int flags, ...)
{
	void *to = NULL;
	va_list args;

	if (flags & MREMAP_FIXED) {
		va_start(args, flags);
		to = va_arg(args, void *);
		va_end(args);
	}
	if (regions_touch(old, old_len ? old_len : 1) ||
	    ((flags & MREMAP_FIXED) && regions_touch(to, len)))
		return address(mapping_move(old, old_len, len, flags, to));
	if (next_resolved() && next.mremap)
		return next.mremap(old, old_len, len, flags, to);
	return address(
		sys_call(SYS_mremap, (long)old, (long)old_len, (long)len, flags, (long)to, 0));
}

/* ---- locking ---- */

EXPORT int mlock(const void *addr, size_t len)
{
	if (regions_touch(addr, len))
		return result(mapping_lock(SYS_mlock, addr, len, 0, true));
	if (next_resolved() && next.mlock)
		return next.mlock(addr, len);
	return result(sys_call(SYS_mlock, (long)addr, (long)len, 0, 0, 0, 0));
}

EXPORT int mlock2(const void *addr, size_t len, unsigned int flags)
{
	if (regions_touch(addr, len))
		return result(mapping_lock(SYS_mlock2, addr, len, flags, true));
	if (next_resolved() && next.mlock2)
		return next.mlock2(addr, len, flags);
	return result(sys_call(SYS_mlock2, (long)addr, (long)len, flags, 0, 0, 0));
}

EXPORT int munlock(const void *addr, size_t len)
{
	if (regions_touch(addr, len))
		return result(mapping_lock(SYS_munlock, addr, len, 0, false));
	if (next_resolved() && next.munlock)
		return next.munlock(addr, len);
	return result(sys_call(SYS_munlock, (long)addr, (long)len, 0, 0, 0, 0));
}

static int real_mlockall(int flags)
{
	return next_resolved() && next.mlockall
		       ? next.mlockall(flags)
		       : result(sys_call(SYS_mlockall, flags, 0, 0, 0, 0, 0));
}

/* All that is mapped will exist: so nothing is that the program did not ask for. */
static void cut_for_lock(void)
{
	if (!arena_reserved || !blocks_lock_within(100))
		return;
	arena_cut_all();
	blocks_unlock();
}

/* All addresses count for who is not privileged, also those that are only reserved. */
static bool trimmed_for_lock(void)
{
	if (errno != ENOMEM || !arena_reserved || !blocks_lock_within(100))
		return false;
	arena_trim_all();
	blocks_unlock();
	return true;
}

EXPORT int mlockall(int flags)
{
	int saved = errno;
	int ret;

	if (flags & MCL_CURRENT)
		cut_for_lock();
	ret = real_mlockall(flags);
	if (ret && (flags & MCL_CURRENT) && trimmed_for_lock()) {
		errno = saved;
		ret = real_mlockall(flags);
	}
	if (!ret && (flags & MCL_CURRENT))
		mapping_all_locked(true);
	return ret;
}

EXPORT int munlockall(void)
{
	int ret = next_resolved() && next.munlockall
			  ? next.munlockall()
			  : result(sys_call(SYS_munlockall, 0, 0, 0, 0, 0, 0));

	if (!ret)
		mapping_all_locked(false);
	return ret;
}

/* ---- userfaultfd ---- */

/* What is to be watched must be private memory, as the program believes it is. */
static void before_register(const struct uffdio_register *r)
{
	if (r && regions_touch((void *)(uintptr_t)r->range.start, r->range.len))
		mapping_give_up((void *)(uintptr_t)r->range.start, r->range.len);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (__builtin_expect(request == UFFDIO_REGISTER, 0))
		before_register(arg);
	if (next_resolved() && next.ioctl)
		return next.ioctl(fd, request, arg);
	return result(sys_call(SYS_ioctl, fd, (long)request, (long)arg, 0, 0, 0));
}

/* ---- stacks ---- */

/*
 * On a thread's stack libc keeps what it knows of the thread, in a list with that of others,
 * and a child changes all of them before it gets to copy anything.
 */
EXPORT int pthread_attr_setstack(pthread_attr_t *attr, void *addr, size_t len)
{
	char *start = (char *)((uintptr_t)addr & ~(ARENA_GRANULE - 1));
	size_t whole =
		(size_t)((char *)addr + len - start + ARENA_GRANULE - 1) & ~(ARENA_GRANULE - 1);
	int ret = next_ready() ? next.pthread_attr_setstack(attr, addr, len) : EAGAIN;

	if (!ret && regions_touch(start, whole))
		mapping_give_up(start, whole);
	return ret;
}

/* ---- SysV ---- */

EXPORT void *shmat(int id, const void *addr, int flags)
{
	void *p;

	/* How much is attached only the kernel knows: from there up. */
	if ((flags & SHM_REMAP) && regions_touch(addr, SIZE_MAX / 2 - (size_t)addr))
		p = address(mapping_attach(id, (void *)(uintptr_t)addr, flags));
	else if (next_resolved() && next.shmat)
		p = next.shmat(id, addr, flags);
	else
		p = address(sys_call(SYS_shmat, id, (long)addr, flags, 0, 0, 0));

	if (p != MAP_FAILED) {
		shared_note(p, 0);
		session_offer_memory();
	}
	return p;
}

EXPORT int shmdt(const void *addr)
{
	int ret = next_resolved() && next.shmdt
			  ? next.shmdt(addr)
			  : result(sys_call(SYS_shmdt, (long)addr, 0, 0, 0, 0, 0));

	if (!ret)
		shared_gone(addr, 1);
	return ret;
}
