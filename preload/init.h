/* SPDX-License-Identifier: MIT */
/* init.h - between the wrappers and the probe that tests them. */
#ifndef UBLKZC_PRELOAD_INIT_H
#define UBLKZC_PRELOAD_INIT_H

#include <stdatomic.h>

enum alloc_call { ALLOC_MALLOC, ALLOC_FREE, ALLOC_MEMALIGN, ALLOC_CALLS };

/* How often our wrapper ran while the shim was off. */
extern atomic_uint alloc_calls[ALLOC_CALLS];

#endif
