/* SPDX-License-Identifier: MIT */
/*
 * fork.c - see fork.h.
 *
 * The parent waits on a pipe, with a deadline, and for its end, so a child that dies
 * does not keep it.
 */
#include "fork.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "arena.h"
#include "blocks.h"
#include "common/log.h"
#include "config.h"
#include "fork_steps.h"
#include "lock.h"
#include "mappings.h"
#include "marks.h"
#include "pins.h"
#include "regions.h"
#include "session.h"
#include "shim.h"
#include "slots.h"
#include "stats.h"
#include "sys.h"
#include "vmas.h"
#include "witness.h"

#define LOCK_MS 10

/* Of this thread's fork, from prepare to parent or child.  Other threads may fork
 * meanwhile. */
static _Thread_local struct {
	bool ours;	  /* prepare has run */
	bool frozen;	  /* what the lock protects is whole */
	bool interrupted; /* a handler forks, in the middle of a change of this thread's */
	bool copy;
	int pipe[2]; /* copy: the child writes one byte when done */
} forking __attribute__((tls_model("initial-exec")));

/* Said once: whoever reads it knows what to do, or that it is well. */
static void say_why_copied(size_t live, const char *who)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&said))
		log_line(LOG_WARN,
			 "a fork copies %zu MiB to the child, because %s may hold pages of them; "
			 "UBLKZC_FORK_COPY_MAX_MB=%zu says that this is well",
			 live >> 20, who, (live >> 20) + 1);
}

static bool wants_private(size_t live)
{
	const char *who;

	if (config.fork == FORK_COPY || (config.fork == FORK_AUTO && live <= config.fork_copy_max))
		return false;
	who = pins_by_whom();
	if (who)
		say_why_copied(live, who);
	return !who;
}

static bool make_private(void)
{
	bool done;

	if (!blocks_lock_within(LOCK_MS))
		return false;
	fork_tidy_private();
	done = fork_make_private();
	forking.frozen = done;
	if (done)
		lock_drop_frozen();
	else
		blocks_unlock();
	return done;
}

static void tidy(void)
{
	if (witness_active() && blocks_lock()) {
		fork_tidy_private();
		blocks_unlock();
	}
}

void fork_prepare(void)
{
	size_t live;

	forking.ours = false;
	/* Without an owner there is neither an arena nor a session. */
	if (!shim.owner || !shim_is_owner())
		return;
	forking.ours = true;
	forking.frozen = forking.copy = false;
	forking.pipe[0] = forking.pipe[1] = -1;
	forking.interrupted = lock_held_here();
	tidy();
	/* While it is frozen, nothing comes or goes. */
	forking.frozen = lock_freeze();
	live = forking.frozen ? fork_live_bytes() : 0;
	if (forking.frozen && !live)
		return;
	if (live && wants_private(live)) {
		lock_thaw();
		if (make_private()) {
			stat_add(STAT_FORK_PRIVATE, 1);
			return;
		}
		forking.frozen = lock_freeze();
	}
	forking.copy = true;
	fork_own_stack(__builtin_frame_address(0));
	if (sys_call(SYS_pipe2, (long)forking.pipe, O_CLOEXEC, 0, 0, 0, 0) < 0)
		forking.pipe[0] = forking.pipe[1] = -1;
	stat_add(STAT_FORK_COPIES, 1);
}

static void close_pipe_end(int end)
{
	if (forking.pipe[end] >= 0)
		sys_close(forking.pipe[end]);
	forking.pipe[end] = -1;
}

static bool readable_before(long long deadline)
{
	long long left;

	while ((left = deadline - sys_now_ms()) > 0) {
		int ret = sys_poll_in(forking.pipe[0], (int)left);

		if (ret > 0)
			return true;
		if (ret < 0 && ret != -EINTR)
			return false;
	}
	return false;
}

static void wait_for_copy(void)
{
	char byte;

	close_pipe_end(1);
	if (forking.pipe[0] < 0) {
		log_line(LOG_WARN,
			 "no descriptor for a pipe: the child of this fork may see later writes");
		return;
	}
	/* Readable, or hung up because the child is gone: both end the wait. */
	if (!readable_before(sys_now_ms() + FORK_COPY_DEADLINE_MS))
		log_line(LOG_WARN, "the child did not copy its memory in time");
	else
		sys_call(SYS_read, forking.pipe[0], (long)&byte, 1, 0, 0, 0);
	close_pipe_end(0);
}

void fork_parent(void)
{
	if (!forking.ours)
		return;
	forking.ours = false;
	if (forking.copy)
		wait_for_copy();
	if (forking.frozen)
		lock_thaw();
	/* What was freed meanwhile waits. */
	if (blocks_lock())
		blocks_unlock();
}

/* What lives on is inherited blocks, which can be freed; regions are ordinary memory. */
static void retire_all(bool torn)
{
	regions_forget();
	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];

		if (a->state == ARENA_EMPTY)
			continue;
		memfile_close(&a->file);
		a->torn = a->torn || torn;
		if (forking.interrupted)
			a->state = ARENA_RETIRED;
		else
			blocks_retire(a);
	}
	marks_reset();
	witness_forget();
}

void fork_child(void)
{
	bool torn = !forking.frozen && !forking.interrupted;

	if (!forking.ours)
		return;
	forking.ours = false;
	/* A handler's own frame goes on with the lock when it returns. */
	if (!forking.interrupted) {
		lock_reset();
		lock_take();
	}
	mappings_reset();
	vmas_forget();
	shim_child_is_owner();
	session_forget();
	stats_reset();
	close_pipe_end(0);
	fork_copy();
	if (forking.copy && forking.pipe[1] >= 0)
		sys_call(SYS_write, forking.pipe[1], (long)"", 1, 0, 0, 0);
	close_pipe_end(1);
	if (torn)
		slots_forget();
	retire_all(torn);
	if (forking.interrupted)
		return;
	if (!torn)
		blocks_drain_cache(); /* what threads had left there */
	blocks_unlock();
}

void fork_never_again(void)
{
	if (!shim.owner || shim.owner != sys_getpid() || pins_by_whom() ||
	    !blocks_lock_within(LOCK_MS))
		return;
	forking.interrupted = false;
	if (fork_make_private()) {
		session_forget();
		retire_all(false);
		shim.owner = 0;
	}
	blocks_unlock();
}
