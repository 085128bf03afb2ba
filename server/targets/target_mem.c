/* SPDX-License-Identifier: MIT */
/*
 * target_mem.c - a RAM disk: the file target on a memfd.
 *
 * Not a malloc'ed area and memcpy: registered client memory must only be
 * touched by system calls (request.c says why), and this way there is one path.
 * It outlives a server that dies, in the hands of its keeper (keeper.h), but not
 * the two of them.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"
#include "server/queue/target.h"
#include "target_file.h"
#include "targets.h"

static int mem_open(struct target *target)
{
	bool fresh = target->fd < 0;

	if (fresh)
		target->fd = memfd_create("ublkzc-mem", MFD_CLOEXEC);
	if (target->fd < 0)
		return log_error(-errno, "memfd_create");
	target->block_size = target->block_size ? target->block_size : 512;
	target->size -= target->size % target->block_size;
	if (fresh && ftruncate(target->fd, (off_t)target->size) < 0)
		return log_error(-errno, "a RAM disk of %llu bytes",
				 (unsigned long long)target->size);
	target->memory_align = 1;
	target->discard = true;
	return 0;
}

static int mem_grow(struct target *target, uint64_t *size)
{
	if (!*size)
		return -EINVAL; /* nothing has changed behind our back */
	return ftruncate(target->fd, (off_t)*size) < 0 ? -errno : 0;
}

const struct target_ops target_mem = {
	.name = "mem",
	.help = "a RAM disk (--size); gone when the server ends",
	.takes_size = true,
	.open = mem_open,
	.grow = mem_grow,
	.submit = target_file_submit,
	.cqe = target_file_cqe,
	.close = target_file_close,
};
