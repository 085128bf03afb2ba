/* SPDX-License-Identifier: MIT */
/*
 * session.c - when there is a session, and who works on it.
 *
 * One thread at a time works on sessions; another one that opens a file
 * meanwhile waits for it, no longer than the deadline.  session_connect.c makes them,
 * session_offer.c says what they are offered.
 */
#include "session_internal.h"

#include <errno.h>

#include "ahead.h"
#include "blocks.h"
#include "config.h"
#include "lock.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"

#define HINT_BYTES (2UL << 20) /* that exist since the last hint, or */
#define HINTS_FREE 32U
#define HINT_MS 50 /* since then, for the next one */
#define LOCK_MS 20 /* to look at an arena; then it is looked at later */

static struct session sessions[SESSIONS_MAX];
static atomic_flag busy = ATOMIC_FLAG_INIT;
atomic_bool session_missed; /* arenas came or went while busy: see to it afterwards */

/* In an allocation: the answers are read when they are needed.  Servers of the older
 * protocol are waited for, so they get theirs at the next open. */
static void reconcile_all(void)
{
	for (unsigned int i = 0; i < SESSIONS_MAX; i++)
		if (sessions[i].used && session_usable(&sessions[i]) && !sessions[i].legacy)
			session_reconcile(&sessions[i]);
}

static void arenas_changed(void)
{
	int saved = errno;

	if (!session_armed() || shim.owner != sys_getpid())
		return;
	/* First: whoever is busy now looks at it when done. */
	session_missed = true;
	for (int i = 0; i < 3 && session_missed && !atomic_flag_test_and_set(&busy); i++) {
		session_missed = false;
		reconcile_all();
		atomic_flag_clear(&busy);
	}
	errno = saved;
}

/* Worth a message?  The first always is: a program that opens and then allocates its few
 * buffers.  A server looks by itself too, if later.  For what was not populated there is no
 * room, and what was handed out before it exists by now. */
static bool hint_is_due(size_t len)
{
	static atomic_size_t unsaid;
	static atomic_uint said;
	static _Atomic long long said_at;
	long long now = sys_now_ms();

	if (atomic_fetch_add(&unsaid, len) + len < HINT_BYTES && now - said_at < HINT_MS &&
	    said >= HINTS_FREE)
		return false;
	unsaid = 0;
	said_at = now;
	atomic_fetch_add(&said, 1);
	return true;
}

static void fresh_block(void *p, size_t len)
{
	struct arena *a = arena_of(p);
	int saved = errno;

	if (!a || !session_armed() || shim.owner != sys_getpid())
		return;
	if (ahead_block(p, len))
		a->untold = true;
	if (!a->untold || !hint_is_due(len) || atomic_flag_test_and_set(&busy))
		return;
	a->untold = false;
	for (unsigned int i = 0; i < SESSIONS_MAX; i++)
		if (sessions[i].used && !sessions[i].legacy && session_usable(&sessions[i]))
			session_send_resident(&sessions[i], a);
	atomic_flag_clear(&busy);
	errno = saved;
}

const struct blocks_events blocks_events = {
	.armed = session_armed,
	.arenas_changed = arenas_changed,
	.fresh_block = fresh_block,
};

/* ---- arming ---- */

static struct session *find_session(unsigned int device)
{
	struct session *spare = NULL;

	for (unsigned int i = 0; i < SESSIONS_MAX; i++) {
		if (sessions[i].used && sessions[i].device == device)
			return &sessions[i];
		if (!sessions[i].used && !spare)
			spare = &sessions[i];
	}
	if (spare)
		*spare = (struct session){ .used = true, .device = device, .fd = -1 };
	return spare;
}

/* A program that opens first and allocates then has its first arena ready and
 * registered by the time it asks for memory. */
static void ensure_arena(void)
{
	if (!blocks_lock_within(LOCK_MS))
		return;
	blocks_ensure_arena();
	blocks_unlock();
}

static void arm(unsigned int device, int proof)
{
	struct session *s = find_session(device);

	if (!s)
		return; /* SESSIONS_MAX disks: the rest is copied */
	if (!session_usable(s))
		session_establish(s, proof);
	if (!s->live)
		return;
	if (shim.on && !shim.no_ahead)
		ensure_arena();
	ahead_prepare();
	session_hand_over_all(s);
}

/* What other threads made while we were busy. */
static void send_missed(void)
{
	/* Not for ever: what an answer is needed for may take until it comes. */
	for (int tries = 0; tries < 3 && atomic_exchange(&session_missed, false) &&
			    !atomic_flag_test_and_set(&busy);
	     tries++) {
		for (unsigned int i = 0; i < SESSIONS_MAX; i++)
			if (sessions[i].used && session_usable(&sessions[i]))
				session_hand_over_all(&sessions[i]);
		atomic_flag_clear(&busy);
	}
}

/*
 * Another thread may be arming for the same disk right now; its end is worth
 * waiting for, because this thread's I/O would be copied until then.
 */
static bool become_busy(void)
{
	long long deadline = sys_now_ms() + (long long)config.connect_ms;

	/* A signal handler that opens a file while its thread allocates. */
	if (lock_held_here())
		return false;
	while (atomic_flag_test_and_set(&busy)) {
		if (sys_now_ms() >= deadline) {
			stat_add(STAT_DEADLINE, 1);
			session_missed = true;
			return false;
		}
		sys_sleep_us(200);
	}
	return true;
}

void session_offer_memory(void)
{
	int saved = errno;

	if (!session_armed() || shim.owner != sys_getpid())
		return;
	session_missed = true;
	if (become_busy()) {
		atomic_flag_clear(&busy);
		send_missed();
	}
	errno = saved;
}

void session_arm(unsigned int device, int proof)
{
	int saved = errno;

	/* In a vfork child the descriptors are its own, but this memory is not. */
	if (!shim_mark_owner() || shim.owner != sys_getpid() || !become_busy())
		return;
	arm(device, proof);
	atomic_flag_clear(&busy);
	send_missed();
	errno = saved;
}

void session_forget(void)
{
	for (unsigned int i = 0; i < SESSIONS_MAX; i++) {
		struct session *s = &sessions[i];

		if (s->live && !s->legacy && sys_fd_is(s->fd, s->dev, s->ino))
			sys_close(s->fd);
		*s = (struct session){ .fd = -1 };
	}
	session_none_live();
	atomic_flag_clear(&busy);
}
