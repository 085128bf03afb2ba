/* SPDX-License-Identifier: MIT */
/* init.h - between the wrappers and the probe that tests them. */
#ifndef UBLKZC_PRELOAD_INIT_H
#define UBLKZC_PRELOAD_INIT_H

#include <stdatomic.h>
#include <stdbool.h>

/*
 * While the probe runs, our allocation wrappers return probe_area and our free
 * counts in probe_frees: so the probe sees whose they are without allocating.
 */
extern atomic_bool probe_running;
extern char probe_area[];
extern unsigned int probe_frees;

#endif
