/* SPDX-License-Identifier: MIT */
/*
 * init.c - switch the shim on, or leave it off.
 *
 * Runs once, as a constructor, without a system call.  Until then, and for
 * ever when something speaks against it, every wrapper passes through.
 *
 * All or nothing: if the program brings an allocator that wins over ours for
 * some of the functions, a block of ours could reach a foreign free.  So we
 * call the functions the way the program would, and see which are ours.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "config.h"
#include "fork.h"
#include "legacy.h"
#include "next.h"
#include "profile.h"
#include "shim.h"
#include "stats.h"
#include "sys.h"
#include "voice.h"

/* Present when a sanitizer's runtime is in the process. */
extern void __asan_init(void) __attribute__((weak));
extern void __tsan_init(void) __attribute__((weak));
extern void __msan_init(void) __attribute__((weak));

static const char *why_off(void)
{
	if (getauxval(AT_SECURE))
		return "the program runs with raised privileges (setuid, capabilities)";
	if (config.disable)
		return "UBLKZC_DISABLE is set";
	if (__asan_init || __tsan_init || __msan_init)
		return "the program is built with a sanitizer";
	if (sysconf(_SC_PAGESIZE) != (long)ARENA_GRANULE)
		return "the page size is not 4096 bytes";
	if (config.capture == CAPTURE_NONE)
		return "UBLKZC_CAPTURE=none";
	if (!alloc_wrappers_reached())
		return "the program's own allocator wins over a preloaded one (static jemalloc, "
		       "tcmalloc, own malloc); nothing can be captured";
	return NULL;
}

/* From what size on a tier captures: UBLKZC_..._MIN, else the profile, else @usual. */
static size_t tier_min(bool forced, size_t of_profile, uint64_t configured, size_t usual)
{
	bool on = forced || (config.capture == CAPTURE_AUTO && of_profile);

	if (!on)
		return SIZE_MAX;
	if (configured)
		return (size_t)configured;
	return of_profile ? of_profile : usual;
}

static void choose_tiers(void)
{
	const struct profile *p = profile_choose(program_invocation_short_name);
	bool all = config.capture == CAPTURE_ALL;

	if (p->off && !shim.off_reason)
		shim.off_reason = "its profile (UBLKZC_PROFILE, UBLKZC_PROFILES) says off";
	shim.malloc_min = tier_min(all || config.capture == CAPTURE_MALLOC, p->malloc_min,
				   config.malloc_min, PROFILE_MALLOC_MIN);
	shim.mmap_min = tier_min(all || config.capture == CAPTURE_MMAP, p->mmap_min,
				 config.mmap_min, PROFILE_MMAP_MIN);
	shim.no_ahead = p->no_ahead;
}

/*
 * "ublkzc doctor" asks what would be done in this program, which is not to run for that.  Only
 * who made a file for the answer is answered: a variable that was left behind ends nobody.
 */
static void answer_probe(void)
{
	char mallocs[64] = "", mappings[64] = "", text[REPORT_TEXT];

	if (shim.malloc_min != SIZE_MAX)
		log_format(mallocs, sizeof(mallocs), ", mallocs of %zu bytes and more",
			   shim.malloc_min);
	if (shim.mmap_min != SIZE_MAX)
		log_format(mappings, sizeof(mappings), ", private mappings of %zu bytes and more",
			   shim.mmap_min);
	log_format(text, sizeof(text), "allocations aligned to 512 and more%s%s", mallocs,
		   mappings);
	stats_captures(text);
	sys_call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}

__attribute__((constructor(101))) static void start(void)
{
	int saved = errno;

	next_ready();
	log_init("libublkzc", LOG_WARN);
	/* A program with raised privileges must not even be told how to log. */
	if (!getauxval(AT_SECURE))
		config_read(environ, &config);
	log_init("libublkzc", (enum log_level)config.log_level);
	if (config.stats_file[0] && !getauxval(AT_SECURE))
		stats_use_file(config.stats_file);
	shim.off_reason = why_off();
	choose_tiers();
	/* Early, so that our prepare handler runs last and the child's first. */
	if (!shim.off_reason && pthread_atfork(fork_prepare, fork_parent, fork_child))
		shim.off_reason = "no memory for the fork handlers";
	/* What is said up to here is said before the program could close anything. */
	voice_start(config.log_set || stats_in_file(), config.stats);
	stats_start(program_invocation_short_name, shim.off_reason);
	if (config.probe && stats_in_file())
		answer_probe();
	shim.watch = shim.off_reason == NULL;
	shim.on = shim.off_reason == NULL;
	/* Also where they are only to be counted, for who wants to know. */
	if (shim.on && (shim.malloc_min != SIZE_MAX || config.stats || stats_in_file()))
		alloc_wrappers_take_malloc();
	errno = saved;
}

/* Later destructors still allocate and free, so nothing is taken down. */
__attribute__((destructor)) static void finish(void)
{
	legacy_leave();
	stat_add(STAT_HELD_BYTES, shim_is_owner() ? arena_resident() : 0);
	if (!config.stats)
		return;
	voice_of_summary();
	stats_print();
}
