/* SPDX-License-Identifier: MIT */
/*
 * first_handlers.c - a library that the program is linked with.
 *
 * Its constructor runs before those of preloaded libraries, so that its
 * prepare handler runs after theirs, and its parent handler before.
 */
#include <pthread.h>

void (*first_prepare)(void);
void (*first_parent)(void);
void (*first_child)(void);

static void prepare(void)
{
	if (first_prepare)
		first_prepare();
}

static void parent(void)
{
	if (first_parent)
		first_parent();
}

static void child(void)
{
	if (first_child)
		first_child();
}

__attribute__((constructor)) static void start(void)
{
	pthread_atfork(prepare, parent, child);
}
