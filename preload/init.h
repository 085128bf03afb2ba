/* SPDX-License-Identifier: MIT */
/* init.h - between the allocation wrappers and what switches them on. */
#ifndef UBLKZC_PRELOAD_INIT_H
#define UBLKZC_PRELOAD_INIT_H

#include <stdbool.h>

/* Do the program's calls of free and its like come to ours? */
bool alloc_wrappers_reached(void);

/* Let the program's calls of malloc and calloc come to us too. */
void alloc_wrappers_take_malloc(void);

#endif
