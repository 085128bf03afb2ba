/* SPDX-License-Identifier: MIT */
/* shard.h - a small number for the calling thread, so that threads keep apart. */
#ifndef UBLKZC_PRELOAD_SHARD_H
#define UBLKZC_PRELOAD_SHARD_H

#include <stdint.h>

/* 0 to 2^@bits - 1.  Threads' control blocks are at least a few cache lines apart. */
static inline unsigned int thread_shard(unsigned int bits)
{
	uint32_t thread = (uint32_t)((uintptr_t)__builtin_thread_pointer() >> 6);

	return thread * 2654435769U >> (32 - bits);
}

#endif
