/* SPDX-License-Identifier: MIT */
/*
 * profile.c - the table.
 *
 * Everything aligned to 512 or more is captured in every program.  These take
 * their buffers from elsewhere too.  A program that forks to snapshot its heap
 * must never have malloc_min here.
 */
#include "profile.h"

#include <string.h>

static const struct profile profiles[] = {
	/* one malloc per job, aligned by hand, or any kind of mapping by --mem */
	{ "fio", PROFILE_MALLOC_MIN, 4096, false },
	/* RocksDB: new char[] of 4.6 KiB to 2 MiB */
	{ "db_bench", PROFILE_MALLOC_MIN, 0, false },
	{ "ldb", PROFILE_MALLOC_MIN, 0, false },
	/* new uint8_t[] */
	{ "ddrescue", PROFILE_MALLOC_MIN, 0, false },
	/* direct ByteBuffers */
	{ "java", PROFILE_MALLOC_MIN, 0, false },
	/* InnoDB: buffer pool and log buffers are anonymous mappings */
	{ "mariadbd", 0, PROFILE_MMAP_MIN, false },
	{ "mysqld", 0, PROFILE_MMAP_MIN, false },
	/* direct I/O is in shared memory; one process per connection, so an
	 * arena in each would be much memory for nothing */
	{ "postgres", 0, 0, true },
};

const struct profile *profile_of(const char *program)
{
	static const struct profile unknown = { .program = "" };

	for (size_t i = 0; program && i < sizeof(profiles) / sizeof(profiles[0]); i++)
		if (strcmp(program, profiles[i].program) == 0)
			return &profiles[i];
	return &unknown;
}
