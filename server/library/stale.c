/* SPDX-License-Identifier: MIT */
/* stale.c - see stale.h. */
#include "stale.h"

#include <errno.h>

static bool is_candidate(const struct stale *s, unsigned int index)
{
	return !s->listed || (s->indices[index / 8] & (1U << (index % 8)));
}

static bool at_end(const struct stale *s)
{
	return s->next > UAPI_SHMEM_BUF_INDEX_MAX || (!s->listed && s->misses >= STALE_MISSES);
}

int stale_next(struct stale *s)
{
	while (!at_end(s) && !is_candidate(s, s->next))
		s->next++;
	if (at_end(s) || s->asked >= STALE_AT_ONCE)
		return -1;
	s->asked++;
	return (int)s->next++;
}

/* An error other than that there is none: the driver keeps it, and nobody is harmed. */
void stale_answered(struct stale *s, int result)
{
	s->asked--;
	if (result == -ENOENT) {
		s->misses++;
		return;
	}
	s->misses = 0;
	s->dropped += result >= 0;
}

bool stale_done(const struct stale *s)
{
	return at_end(s) && !s->asked;
}
