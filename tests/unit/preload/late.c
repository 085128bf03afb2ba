/* SPDX-License-Identifier: MIT */
/*
 * late.c - a program that gets its mallocs from libraries, built as both.
 *
 * usage: late LIBRARY
 *
 * Prints who captured a large malloc: libc's lie 16 bytes behind a page's start, the
 * shim's on it.  LATE_LIBRARY: the library, which dlopen brings.
 */
#include <stdint.h>
#include <stdlib.h>

const char *allocates(void);

const char *allocates(void)
{
	void *(*volatile by_pointer)(size_t) = malloc;
	void *p = by_pointer(200000), *q = calloc(1, 200000);
	const char *who = (uintptr_t)p % 4096 == 0 && (uintptr_t)q % 4096 == 0 ? "the shim" : "libc";

	free(p);
	free(q);
	return who;
}

#ifndef LATE_LIBRARY
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	const char *(*theirs)(void);
	char line[64];
	FILE *f;

	if (!library)
		return 2;
	*(void **)&theirs = dlsym(library, "allocates");
	printf("program: %s\n", allocates());
	printf("library: %s\n", theirs());
	/* What comes after the program is the shim: so it is the program that asks. */
	if (dlsym(RTLD_NEXT, "free") != (void *)free)
		return 3;
	/* libc's own, and closing what was opened later */
	f = fopen("/dev/null", "r");
	if (!f || fgets(line, sizeof(line), f))
		return 1;
	fclose(f);
	dlclose(library);
	printf("program: %s\n", allocates());
	return 0;
}
#endif
