/* SPDX-License-Identifier: MIT */
/* profile.h - which programs take their direct-I/O buffers from plain malloc. */
#ifndef UBLKZC_PRELOAD_PROFILE_H
#define UBLKZC_PRELOAD_PROFILE_H

#include <stdbool.h>

/* @program: the basename it was started as; NULL is nobody. */
bool profile_captures_malloc(const char *program);

#endif
