/* SPDX-License-Identifier: MIT */
/* run_program.h - start a program under libublkzc.so and wait for it. */
#ifndef UBLKZC_SERVER_RUN_PROGRAM_H
#define UBLKZC_SERVER_RUN_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

/* As shells and env(1) have it. */
#define RUN_CANNOT_EXECUTE 126
#define RUN_NOT_FOUND 127

#define RUN_PATH_MAX 4096 /* bytes of a path, its end included */

/*
 * The library to preload, into @ret: @library, or with NULL the one beside this program, or
 * where it was installed.  0, or a negative errno, said.
 */
int run_program_library(const char *library, char *ret, size_t size);

/*
 * Put our library in front in LD_PRELOAD: @library, or with NULL the one beside
 * this program, or where it was installed.  0, or a negative errno, said.
 */
int run_program_preload(const char *library);

typedef void run_tick_fn(void *arg);

/*
 * Run @argv to its end, passing signals on; @tick, unless NULL, is called each second or oftener
 * meanwhile.  Its exit status, 128 + the signal that ended it, or RUN_..., said.
 */
int run_program(char **argv, run_tick_fn *tick, void *arg);

/*
 * What can be told of @program without running it: why nothing can be preloaded into it, or
 * NULL when nothing speaks against it.
 */
const char *run_program_obstacle(const char *program);

/* Is it a script?  Then what runs it is in @interpreter. */
bool run_program_script(const char *program, char interpreter[RUN_PATH_MAX]);

/* Why a program left no report: it is static, setuid, for another machine ... */
const char *run_program_why_not(const char *program);

#endif
