/* SPDX-License-Identifier: MIT */
/*
 * block_cache.h - blocks that were freed a moment ago.
 *
 * Direct I/O buffers are often allocated and freed around each request.  A
 * freed block is left where the same thread finds it again, without the lock:
 * two slots for each size in each of a few shards, chosen by thread.  Nothing
 * has to be done when a thread ends.
 */
#ifndef UBLKZC_PRELOAD_BLOCK_CACHE_H
#define UBLKZC_PRELOAD_BLOCK_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#define CACHE_LEN_MAX 64U /* granules: larger blocks are not kept, 256 KiB */
#define CACHE_SHARD_BITS 4U
#define CACHE_DEPTH 2U

/* A block of exactly @len granules, or NULL. */
void *cache_take(uint32_t len);

/* False: there is no room for it. */
bool cache_give(void *p, uint32_t len);

/* Take all out, and call @each for them. */
void cache_drain(void (*each)(void *p));

#endif
