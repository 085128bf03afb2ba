/* SPDX-License-Identifier: MIT */
/* lock.c - see lock.h. */
#include "lock.h"

#include <stdatomic.h>
#include <sys/syscall.h>

#include "sys.h"

#define SPINS 64     /* looks before the processor is given up */
#define WAIT_MS 20   /* for a holder that was preempted: any lock costs that */
#define FREEZE_MS 20 /* a fork costs that much anyway where it matters */

#define HELD (-1) /* else: by how many forks it is frozen; 0: free */

static atomic_int state;
/* Somebody has tried in vain since the holder came: it is stopped, and others need
 * not find that out anew each time. */
static atomic_bool stuck;
/* initial-exec: the first use in a thread must not allocate */
static _Thread_local volatile bool held_here __attribute__((tls_model("initial-exec")));

static bool grab(int from, int to)
{
	return atomic_compare_exchange_strong_explicit(&state, &from, to, memory_order_acquire,
						       memory_order_relaxed);
}

static void pause_a_bit(int tries)
{
	if (tries < SPINS)
		atomic_signal_fence(memory_order_seq_cst);
	else
		sys_call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

/* Never while frozen: a fork may take long. */
static bool try_for(int ms)
{
	long long deadline = 0;

	for (int i = 0;; i++) {
		int now = atomic_load_explicit(&state, memory_order_relaxed);

		if (now == 0 && grab(0, HELD))
			return true;
		if (now > 0 || !ms)
			return false;
		pause_a_bit(i);
		if (i < SPINS || i % 8)
			continue;
		if (!deadline)
			deadline = sys_now_ms() + ms;
		if (sys_now_ms() >= deadline)
			return false;
	}
}

bool lock_take(void)
{
	bool hopeless = atomic_load_explicit(&stuck, memory_order_relaxed);

	if (held_here)
		return false;
	/* First, so that no signal handler finds the lock taken and this unset. */
	held_here = true;
	if (try_for(hopeless ? 0 : WAIT_MS))
		return true;
	held_here = false;
	if (!hopeless && atomic_load_explicit(&state, memory_order_relaxed) == HELD)
		atomic_store_explicit(&stuck, true, memory_order_relaxed);
	return false;
}

bool lock_take_within(int ms)
{
	long long deadline;

	if (held_here)
		return false;
	if (lock_take())
		return true;
	deadline = sys_now_ms() + ms;
	while (!lock_take()) {
		if (sys_now_ms() >= deadline)
			return false;
		sys_sleep_us(200);
	}
	return true;
}

static void release(int to)
{
	atomic_store_explicit(&stuck, false, memory_order_relaxed);
	atomic_store_explicit(&state, to, memory_order_release);
	held_here = false;
}

void lock_drop(void)
{
	release(0);
}

void lock_drop_frozen(void)
{
	release(1);
}

bool lock_held_here(void)
{
	return held_here;
}

bool lock_freeze(void)
{
	long long deadline = 0;

	for (int i = 0; !held_here; i++) {
		int now = atomic_load_explicit(&state, memory_order_relaxed);

		if (now >= 0 && grab(now, now + 1))
			return true;
		pause_a_bit(i);
		if (i < SPINS)
			continue;
		if (!deadline)
			deadline = sys_now_ms() + FREEZE_MS;
		if (sys_now_ms() >= deadline)
			break;
	}
	return false;
}

void lock_thaw(void)
{
	atomic_fetch_sub_explicit(&state, 1, memory_order_release);
}

bool lock_frozen(void)
{
	return atomic_load_explicit(&state, memory_order_acquire) > 0;
}

void lock_reset(void)
{
	atomic_store(&state, 0);
	atomic_store(&stuck, false);
	held_here = false;
}
