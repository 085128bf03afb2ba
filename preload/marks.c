/* SPDX-License-Identifier: MIT */
/* marks.c - a table that is searched from end to end: few programs set any. */
#include "marks.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys.h"

static struct range {
	char *start, *end;
	enum mark mark; /* MARK_NONE: the entry is unused */
} table[MARKS_MAX];
static unsigned int nr_entries; /* entries from here on are unused */

static struct range *unused_entry(void)
{
	for (unsigned int i = 0; i < nr_entries; i++)
		if (table[i].mark == MARK_NONE)
			return &table[i];
	return nr_entries < MARKS_MAX ? &table[nr_entries++] : NULL;
}

static bool meets(const struct range *r, const char *start, const char *end)
{
	return r->mark != MARK_NONE && r->start < end && r->end > start;
}

/* A range in the middle of another leaves two: false when there is no room. */
static bool cut(struct range *r, char *start, char *end)
{
	if (r->start < start && r->end > end) {
		struct range *rest = unused_entry();

		if (!rest)
			return false;
		*rest = (struct range){ end, r->end, r->mark };
		r->end = start;
	} else if (r->start < start) {
		r->end = start;
	} else if (r->end > end) {
		r->start = end;
	} else {
		r->mark = MARK_NONE;
	}
	return true;
}

/* What is searched is what is used. */
static void forget_last(void)
{
	while (nr_entries && table[nr_entries - 1].mark == MARK_NONE)
		nr_entries--;
}

bool marks_clear(enum mark mark, const void *addr, size_t len)
{
	char *start = (char *)(uintptr_t)addr;
	bool all = true;

	for (unsigned int i = 0; i < nr_entries; i++)
		if (table[i].mark == mark && meets(&table[i], start, start + len))
			all = cut(&table[i], start, start + len) && all;
	forget_last();
	return all;
}

/* Neighbours are joined, so that a range grown piece by piece is one. */
bool marks_set(enum mark mark, const void *addr, size_t len)
{
	struct range new = { (char *)(uintptr_t)addr, (char *)(uintptr_t)addr + len, mark };
	struct range *entry;

	for (unsigned int i = 0; i < nr_entries; i++) {
		struct range *r = &table[i];

		if (r->mark != mark || r->start > new.end || r->end < new.start)
			continue;
		if (r->start < new.start)
			new.start = r->start;
		if (r->end > new.end)
			new.end = r->end;
		r->mark = MARK_NONE;
	}
	entry = unused_entry();
	if (entry)
		*entry = new;
	return entry != NULL;
}

void marks_clear_all(const void *addr, size_t len)
{
	if (!nr_entries)
		return;
	for (enum mark mark = MARK_WIPE; mark <= MARK_LOCKED; mark++)
		marks_clear(mark, addr, len);
}

void marks_each(enum mark mark, const void *addr, size_t len,
		void (*each)(void *addr, size_t len, void *arg), void *arg)
{
	char *start = (char *)(uintptr_t)addr;
	char *end = start + len;

	for (unsigned int i = 0; i < nr_entries; i++) {
		const struct range *r = &table[i];
		char *from = r->start > start ? r->start : start;
		char *to = r->end < end ? r->end : end;

		if (r->mark == mark && meets(r, start, end))
			each(from, (size_t)(to - from), arg);
	}
}

void marks_move(const void *from, void *to, size_t len)
{
	const char *start = from;

	for (unsigned int i = 0; i < nr_entries; i++) {
		struct range r = table[i];

		if (!meets(&r, start, start + len))
			continue;
		if (r.start < start)
			r.start = (char *)(uintptr_t)start;
		if (r.end > start + len)
			r.end = (char *)(uintptr_t)start + len;
		marks_clear(r.mark, r.start, (size_t)(r.end - r.start));
		marks_set(r.mark, (char *)to + (r.start - start), (size_t)(r.end - r.start));
	}
}

static void found(void *addr, size_t len, void *arg)
{
	(void)addr;
	(void)len;
	*(bool *)arg = true;
}

bool marks_any(enum mark mark, const void *addr, size_t len)
{
	bool any = false;

	if (nr_entries)
		marks_each(mark, addr, len, found, &any);
	return any;
}

static void dont_fork(void *addr, size_t len, void *arg)
{
	(void)arg;
	sys_madvise(addr, len, MADV_DONTFORK);
}

static void lock_pages(void *addr, size_t len, void *arg)
{
	(void)arg;
	sys_call(SYS_mlock, (long)addr, (long)len, 0, 0, 0, 0);
}

void marks_apply(const void *addr, size_t len)
{
	marks_each(MARK_DONTFORK, addr, len, dont_fork, NULL);
	marks_each(MARK_LOCKED, addr, len, lock_pages, NULL);
}

void marks_reset(void)
{
	nr_entries = 0;
}
