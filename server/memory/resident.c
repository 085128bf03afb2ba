/* SPDX-License-Identifier: MIT */
/*
 * resident.c - see resident.h.
 *
 * tmpfs and memfds say where their data is (lseek(2), SEEK_DATA); swapped pages count, they come
 * back to who owns them.  hugetlbfs does not say it, and mincore(2) looks only into our own page
 * tables there; so each huge page is touched through a guarded mapping.
 */
#include "resident.h"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "guard.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

uint64_t resident_huge_page(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : 0;
}

/* Forget the shorter half of the runs, and what is no longer from now on. */
static void keep_longer(struct resident *r)
{
	while (r->nr > RESIDENT_RUNS_MAX / 2) {
		unsigned int kept = 0;

		r->shortest *= 2;
		for (unsigned int i = 0; i < r->nr; i++)
			if (r->runs[i].len >= r->shortest)
				r->runs[kept++] = r->runs[i];
		r->nr = kept;
	}
}

static void add_run(struct resident *r, uint64_t offset, uint64_t end)
{
	struct memory_range *last = r->nr ? &r->runs[r->nr - 1] : NULL;

	if (last && last->offset + last->len == offset) {
		last->len += end - offset;
		return;
	}
	if (end - offset < r->shortest)
		return;
	if (r->nr == RESIDENT_RUNS_MAX)
		keep_longer(r);
	r->runs[r->nr++] = (struct memory_range){ offset, end - offset };
}

static void look_for_data(struct resident *r, uint64_t at, uint64_t end)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	while (at < end) {
		off_t data = lseek(r->fd, (off_t)at, SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(r->fd, data, SEEK_HOLE);

		if (hole <= data || (uint64_t)data >= end)
			return; /* no more, or it shrinks */
		at = (uint64_t)hole < end ? (uint64_t)hole : end;
		/* The end of a file that is not sealed may lie within a page by now. */
		if (at - at % page > (uint64_t)data)
			add_run(r, (uint64_t)data, at - at % page);
	}
}

static void touch_huge_pages(struct resident *r, uint64_t at, uint64_t end)
{
	uint64_t page = r->huge_page;
	int guard;
	void *map;

	at = (at + page - 1) / page * page;
	end = end / page * page;
	if (at >= end || !guard_works())
		return;
	if (guard_map(r->fd, at, end - at, PROT_READ, &map, &guard))
		return;
	for (uint64_t i = 0; !guard && i < end - at; i += page)
		if (madvise((uint8_t *)map + i, page, MADV_POPULATE_READ) == 0)
			add_run(r, at + i, at + i + page);
	munmap(map, end - at);
}

void resident_look(struct resident *r, uint64_t offset, uint64_t len)
{
	if (!r->shortest)
		r->shortest = (uint64_t)sysconf(_SC_PAGESIZE);
	if (r->huge_page)
		touch_huge_pages(r, offset, offset + len);
	else
		look_for_data(r, offset, offset + len);
}
