/* SPDX-License-Identifier: MIT */
/* lock.c - see lock.h. */
#include "lock.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>

#include "common/log.h"
#include "shim.h"
#include "sys.h"

#define SPINS 64	/* looks before the processor is given up */
#define WAIT_MS 20	/* for a holder that was preempted: any lock costs that */
#define PATIENT_MS 1000 /* for one that is seen to go on as soon as it may */
#define FREEZE_MS 20	/* a fork costs that much anyway where it matters */

#define HELD (-1) /* else: by how many forks it is frozen; 0: free */

static atomic_int state;
/* Somebody has tried in vain since the holder came: it is stopped, and others need
 * not find that out anew each time. */
static atomic_bool stuck;
static atomic_int holder; /* the thread; 0: not known */
/* initial-exec: the first use in a thread must not allocate */
static _Thread_local volatile bool held_here __attribute__((tls_model("initial-exec")));
static _Thread_local int this_thread __attribute__((tls_model("initial-exec")));

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

/* Not one that was stopped, which may be until we go on. */
static bool holder_goes_on(void)
{
	char path[48], stat[64]; /* "123 (name) R": a name has 15 bytes */
	const char *name_end;
	long fd, len;
	int id = atomic_load_explicit(&holder, memory_order_relaxed);

	if (!id)
		return true;
	if (shim.sandboxed)
		return false;
	log_format(path, sizeof(path), "/proc/self/task/%d/stat", id);
	fd = sys_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return false;
	len = sys_call(SYS_read, fd, (long)stat, sizeof(stat) - 1, 0, 0, 0);
	sys_close((int)fd);
	stat[len > 0 ? len : 0] = 0;
	name_end = strrchr(stat, ')');
	return name_end && (strncmp(name_end, ") R", 3) == 0 || strncmp(name_end, ") D", 3) == 0);
}

static bool look_again(void)
{
	for (int i = 0; i < WAIT_MS; i++) {
		sys_sleep_us(1000);
		if (try_for(0))
			return true;
	}
	return false;
}

static bool wait_for(int ms)
{
	if (atomic_load_explicit(&stuck, memory_order_relaxed))
		return try_for(0);
	if (try_for(WAIT_MS))
		return true;
	for (int waited = WAIT_MS;; waited += WAIT_MS) {
		if (atomic_load_explicit(&state, memory_order_relaxed) != HELD)
			return try_for(0);
		if (!holder_goes_on() || waited >= PATIENT_MS) {
			atomic_store_explicit(&stuck, true, memory_order_relaxed);
			return false;
		}
		if (waited >= ms)
			return false;
		if (look_again())
			return true;
	}
}

static bool take(int ms)
{
	if (held_here)
		return false;
	/* First, so that no signal handler finds the lock taken and this unset. */
	held_here = true;
	if (!wait_for(ms)) {
		held_here = false;
		return false;
	}
	if (!this_thread)
		this_thread = (int)sys_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
	atomic_store_explicit(&holder, this_thread, memory_order_relaxed);
	return true;
}

bool lock_take(void)
{
	return take(WAIT_MS);
}

bool lock_take_patiently(void)
{
	return take(PATIENT_MS);
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
	atomic_store_explicit(&holder, 0, memory_order_relaxed);
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
	atomic_store(&holder, 0);
	held_here = false;
	this_thread = 0;
}
