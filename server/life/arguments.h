/* SPDX-License-Identifier: MIT */
/*
 * arguments.h - the command line of a server, kept in /run/ublkzc/ublkbN.args so
 * that "ublkzc recover" knows what the server was.  For root only.
 */
#ifndef UBLKZC_SERVER_ARGUMENTS_H
#define UBLKZC_SERVER_ARGUMENTS_H

#include <stddef.h>

#define ARGUMENTS_MAX 256	  /* words */
#define ARGUMENTS_BYTES_MAX 65536 /* bytes, with a NUL behind each word */

void arguments_path(char *buf, size_t size, unsigned int device);

/* 0 or a negative errno: -E2BIG. */
int arguments_save(unsigned int device, int argc, char **argv);

/* Words in memory of their own, a NULL behind the last.  -ENOENT: none kept. */
int arguments_load(unsigned int device, int *ret_argc, char ***ret_argv);

/*
 * @word, made absolute if it is a relative path that exists: a server's working
 * directory is not its user's.  The result is the caller's; NULL: no memory.
 */
char *arguments_absolute(const char *word);

#endif
