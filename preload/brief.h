/* SPDX-License-Identifier: MIT */
/*
 * brief.h - mappings that are gone before a server could have registered them.
 *
 * They are captured in vain, and a page of shared memory costs twice what one of private
 * memory does.  Which ones will be brief nobody knows, but programs repeat themselves:
 * when several of one length in a row were unmapped within UBLKZC_MMAP_BRIEF_MS, only every
 * sixteenth of that length is captured, until one lives longer, or none was asked for
 * for a second.
 *
 * No lock: threads that come at once may lose a count.
 */
#ifndef UBLKZC_PRELOAD_BRIEF_H
#define UBLKZC_PRELOAD_BRIEF_H

#include <stdbool.h>
#include <stddef.h>

/* Is a mapping of @len bytes better left alone? */
bool brief_expected(size_t len);

/* A captured one of @len bytes was unmapped after @ms. */
void brief_note(size_t len, long long ms);

#endif
