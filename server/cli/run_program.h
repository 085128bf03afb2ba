/* SPDX-License-Identifier: MIT */
/* run_program.h - start a program under libublkzc.so and wait for it. */
#ifndef UBLKZC_SERVER_RUN_PROGRAM_H
#define UBLKZC_SERVER_RUN_PROGRAM_H

/* As shells and env(1) have it. */
#define RUN_CANNOT_EXECUTE 126
#define RUN_NOT_FOUND 127

/*
 * Put our library in front in LD_PRELOAD: @library, or with NULL the one beside
 * this program, or where it was installed.  0, or a negative errno, said.
 */
int run_program_preload(const char *library);

/*
 * Run @argv to its end, passing signals on.  Its exit status, 128 + the signal
 * that ended it, or RUN_..., said.
 */
int run_program(char **argv);

/* Why a program left no report: it is static, setuid, for another machine ... */
const char *run_program_why_not(const char *program);

#endif
