/* SPDX-License-Identifier: MIT */
/* config.h - the UBLKZC_* variables; docs/environment.md is the prose. */
#ifndef UBLKZC_PRELOAD_CONFIG_H
#define UBLKZC_PRELOAD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum capture_mode {
	CAPTURE_AUTO, /* aligned allocations, and what the program's profile says */
	CAPTURE_NONE,
	CAPTURE_ALIGNED, /* these only */
	CAPTURE_MALLOC,	 /* and large mallocs */
	CAPTURE_MMAP,	 /* and private mappings */
	CAPTURE_ALL,	 /* and both */
};
enum fork_mode { FORK_AUTO, FORK_COPY, FORK_PRIVATE };

#define CONFIG_TEXT_MAX 512 /* bytes of a path or profile, its end included */

struct config {
	bool disable;
	bool stats;
	bool probe; /* tell what would be captured, and end */
	int log_level; /* enum log_level */
	bool log_set;  /* somebody asked for it */
	enum capture_mode capture;
	enum fork_mode fork;
	uint64_t malloc_min;	/* bytes; 0: the profile's or the default */
	uint64_t mmap_min;	/* likewise */
	uint64_t mmap_brief_ms; /* captured mappings that live shorter were in vain */
	uint64_t fork_copy_max; /* bytes */
	uint64_t arena_first;	/* bytes of the first arena */
	uint64_t max_bytes;	/* all arenas together; 0: no limit of ours */
	uint64_t connect_ms;
	/* copies: programs write over their environment */
	char socket_dir[CONFIG_TEXT_MAX];
	char legacy_dir[CONFIG_TEXT_MAX];
	char stats_file[CONFIG_TEXT_MAX]; /* empty: none */
	char profiles[CONFIG_TEXT_MAX];	  /* a file; empty: none */
	char profile[CONFIG_TEXT_MAX];	  /* lines as in that file */
};

extern struct config config;

/* Fill @ret from @environ (as in environ(7)); complains once per bad variable. */
void config_read(char *const *environ_list, struct config *ret);

#endif
