/* SPDX-License-Identifier: MIT */
/*
 * mem.c - a RAM disk: the file engine on a memfd.
 *
 * Not a malloc'ed area and memcpy: registered client memory must only be
 * touched by system calls (request.c says why), and this way there is one path.
 * It outlives a server that dies, in the hands of its keeper (keeper.h), but not
 * the two of them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engines.h"
#include "file.h"

static int mem_check(const struct ublkzc_target *target, char *why, size_t size)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (target->size <= memory)
		return 0;
	snprintf(why, size, "--size %llu is more than this machine's memory, %llu bytes",
		 (unsigned long long)target->size, (unsigned long long)memory);
	return -EINVAL;
}

static int cannot(const char *what, uint64_t bytes)
{
	int ret = -errno;

	ublkzc_log(UBLKZC_LOG_ERROR, "%s of %llu bytes: %s", what, (unsigned long long)bytes,
		   strerror(-ret));
	return ret;
}

static int mem_open(struct ublkzc_target *target)
{
	bool fresh = target->fd < 0;

	if (fresh)
		target->fd = memfd_create("ublkzc-mem", MFD_CLOEXEC);
	if (target->fd < 0)
		return cannot("memfd_create", target->size);
	target->block_size = target->block_size ? target->block_size : 512;
	target->size -= target->size % target->block_size;
	if (fresh && ftruncate(target->fd, (off_t)target->size) < 0)
		return cannot("a RAM disk", target->size);
	target->discard = target->write_zeroes = true;
	return 0;
}

static int mem_grow(struct ublkzc_target *target, uint64_t *size)
{
	if (!*size)
		return -EINVAL; /* nothing has changed behind our back */
	return ftruncate(target->fd, (off_t)*size) < 0 ? -errno : 0;
}

const struct ublkzc_engine engine_mem = {
	.size = sizeof(engine_mem),
	.flags = UBLKZC_TAKES_SIZE | UBLKZC_IN_MEMORY,
	.name = "mem",
	.summary = "a RAM disk; gone when the server ends",
	.check = mem_check,
	.open = mem_open,
	.grow = mem_grow,
	.submit = file_submit,
	.cqe = file_cqe,
	.close = file_close,
};
