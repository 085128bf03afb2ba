/* SPDX-License-Identifier: MIT */
/*
 * lock.h - the one lock of the shim's memory, for which nobody waits long.
 *
 * Capture is optional: who cannot have the lock at once lets libc do it, or leaves
 * a note for the next holder.  So it does no harm when the holder is stopped by a
 * signal for long (stop-the-world collectors), is interrupted by a handler that
 * allocates or forks, or is on its way into a fork with other people's handlers.
 *
 * A fork freezes what the lock protects: several threads may do so at once, and
 * nobody gets the lock until all have thawed it.
 */
#ifndef UBLKZC_PRELOAD_LOCK_H
#define UBLKZC_PRELOAD_LOCK_H

#include <stdbool.h>

/* Waits for a holder that was preempted, but for milliseconds only, and not once each.
 * False: held or frozen, perhaps by this very thread, which a signal handler
 * interrupts. */
bool lock_take(void);

/* For an allocation: what libc gives instead is copied for good.  So a holder that only waits for
 * a processor, or in the kernel, is waited for as one waits for libc's own locks. */
bool lock_take_patiently(void);

/* For callers that may wait, such as an open: tries for up to @ms milliseconds. */
bool lock_take_within(int ms);

void lock_drop(void);

/* By this thread, further up: the caller is a signal handler. */
bool lock_held_here(void);

/* Waits a moment for a holder.  False: what is protected may be in the middle of a
 * change, and lock_thaw() must not be called. */
bool lock_freeze(void);
void lock_thaw(void);

/* The holder lets go, and what it did stays frozen. */
void lock_drop_frozen(void);

/* One load: caches that need no lock ask it. */
bool lock_frozen(void);

/* In a child: whoever held or froze it is not here. */
void lock_reset(void);

#endif
