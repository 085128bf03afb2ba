/* SPDX-License-Identifier: MIT */
/*
 * waiters.h - threads that wait on a futex in memory that was mapped anew.
 *
 * A futex that is not process-private is known by its file and offset while its page is
 * mapped shared, and by its address when it is private: who waits on it when that
 * changes would never be woken.  So all such threads are woken, once; whoever waits on
 * a futex looks again, because it may be woken for no reason.
 */
#ifndef UBLKZC_PRELOAD_WAITERS_H
#define UBLKZC_PRELOAD_WAITERS_H

/* After what is ours was made private. */
void waiters_wake(void);

#endif
