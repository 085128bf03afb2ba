/* SPDX-License-Identifier: MIT */
/*
 * fork_private.c - copy-on-write before the fork; see fork_steps.h.
 *
 * Afterwards a page is in the memfd until somebody writes to it, and then in both: what
 * the memfd has under a page of our own is given back when no child is left that could
 * still see it.
 */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arena.h"
#include "blocks.h"
#include "fork_steps.h"
#include "mappings.h"
#include "marks.h"
#include "stats.h"
#include "sys.h"
#include "vmas.h"
#include "waiters.h"
#include "witness.h"

#define RETIRED_MAX 64U /* arenas: then forks copy until some of them are free */

size_t fork_live_bytes(void)
{
	bool counted[256] = { false }; /* pools: all regions of one at once */
	size_t sum = 0;

	for (unsigned int i = 0; i < arena_slots; i++) {
		const struct arena *a = &arenas[i];
		size_t used = a->used * ARENA_GRANULE;
		size_t resident;

		if (a->state != ARENA_SHARED || (a->granules && !used) || counted[a->pool])
			continue;
		resident = memfile_resident(&a->file, a->len);
		counted[a->pool] = a->pool != 0;
		/* A region that was never touched may be written to by either side. */
		if (!resident && a->pool)
			resident = 1;
		sum += a->granules && used < resident ? used : resident;
	}
	return sum;
}

static bool make_private(const struct vma *v, void *arg)
{
	const struct arena *a = arena_of_file(v->dev, v->ino, v->offset);
	bool *all = arg;
	long map;

	if (!v->shared || (a && a->granules && !a->used))
		return true;
	/* The program may have closed a descriptor that it did not know. */
	if (!a || !memfile_valid(&a->file)) {
		*all = false;
		return true;
	}
	/* No more may be promised than the kernel has: nothing is, as for what it is mapped from.
	 */
	map = sys_mmap(v->start, v->len, v->prot, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
		       a->file.fd, (off_t)v->offset);
	if (sys_is_error(map))
		*all = false;
	else
		marks_apply(v->start, v->len);
	return true;
}

static unsigned int nr_retired(void)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < arena_slots; i++)
		nr += arenas[i].state == ARENA_RETIRED && arenas[i].granules;
	return nr;
}

static void retire_all(void)
{
	for (unsigned int i = 0; i < arena_slots; i++) {
		struct arena *a = &arenas[i];

		if (a->state != ARENA_SHARED || (a->granules && !a->used))
			continue;
		stat_add(STAT_ARENAS_RETIRED, 1);
		if (a->granules)
			blocks_retire(a);
		else
			a->state = ARENA_RETIRED;
	}
	blocks_news();
}

bool fork_make_private(void)
{
	bool all = true;
	sigset_t before;

	if (nr_retired() >= RETIRED_MAX || !witness_start())
		return false;
	/* A handler must not find the mappings closed. */
	sys_block_signals(&before);
	if (mappings_close()) {
		if (vmas_each(NULL, (size_t)1 << 56, make_private, &all) < 0)
			all = false;
		mappings_open();
	} else {
		all = false;
	}
	sys_restore_signals(&before);
	waiters_wake();
	if (all)
		retire_all();
	return all;
}

/* ---- afterwards ---- */

#define PAGE_PRESENT (1ULL << 63)
#define PAGE_SWAPPED (1ULL << 62)
#define PAGE_OF_FILE (1ULL << 61)

struct tidy {
	int pagemap;
	const struct arena *a;
	char *base; /* of the arena, for its runs */
};

static bool is_own(uint64_t page)
{
	return (page & PAGE_SWAPPED) || ((page & PAGE_PRESENT) && !(page & PAGE_OF_FILE));
}

/* The pages of @v that we have a copy of are nobody's in the memfd. */
static bool punch_under_own(const struct vma *v, void *arg)
{
	const struct tidy *t = arg;
	const struct arena *a = arena_of_file(v->dev, v->ino, v->offset);
	uint64_t pages[256];
	size_t nr = v->len / ARENA_GRANULE;

	if (v->shared || !a)
		return true;
	for (size_t at = 0; at < nr; at += 256) {
		size_t want = nr - at < 256 ? nr - at : 256;
		long have = sys_call(SYS_pread64, t->pagemap, (long)pages, (long)(want * 8),
				     (long)(((uintptr_t)v->start / ARENA_GRANULE + at) * 8), 0, 0);
		size_t run = 0;

		for (size_t i = 0; i <= want && have == (long)(want * 8); i++) {
			if (i < want && is_own(pages[i])) {
				run++;
				continue;
			}
			if (run)
				memfile_punch(&a->file, v->offset + (at + i - run) * ARENA_GRANULE,
					      run * ARENA_GRANULE);
			run = 0;
		}
	}
	return true;
}

static void punch_free(char *at, size_t len, void *arg)
{
	const struct arena *a = arg;

	memfile_punch(&a->file, (uint64_t)(at - a->base), len);
}

void fork_tidy_private(void)
{
	struct tidy t;

	/* Nothing was made private, or somebody still sees it as it was. */
	if (!witness_active() || !witness_gone())
		return;
	t.pagemap = vmas_open_proc("pagemap");
	if (t.pagemap >= 0) {
		vmas_each(NULL, (size_t)1 << 56, punch_under_own, &t);
		sys_close(t.pagemap);
	}
	for (unsigned int i = 0; i < arena_slots; i++)
		if (arenas[i].state == ARENA_RETIRED && arenas[i].granules && !arenas[i].torn)
			blocks_for_each_free(&arenas[i], punch_free, &arenas[i]);
}
