/* SPDX-License-Identifier: MIT */
/*
 * profile.c - the table.
 *
 * Everything aligned to 512 or more is captured in every program.  These
 * align by hand inside a plain malloc, so their large allocations are captured
 * too.  A program that forks to snapshot its heap must never be here.
 */
#include "profile.h"

#include <stddef.h>
#include <string.h>

static const char *const captures_malloc[] = {
	"fio",	    /* one malloc per job, aligned by hand */
	"db_bench", /* RocksDB: new char[] of 4.6 KiB to 2 MiB */
	"ldb",	    /* RocksDB's tool */
	"ddrescue", /* new uint8_t[] */
	"java",	    /* direct ByteBuffers */
};

bool profile_captures_malloc(const char *program)
{
	for (size_t i = 0; program && i < sizeof(captures_malloc) / sizeof(captures_malloc[0]); i++)
		if (strcmp(program, captures_malloc[i]) == 0)
			return true;
	return false;
}
