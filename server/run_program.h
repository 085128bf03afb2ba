/* SPDX-License-Identifier: MIT */
/* run_program.h - start a program under libublkzc.so and wait for it. */
#ifndef UBLKZC_SERVER_RUN_PROGRAM_H
#define UBLKZC_SERVER_RUN_PROGRAM_H

#include "common/report.h"

/* As shells and env(1) have it. */
#define RUN_CANNOT_EXECUTE 126
#define RUN_NOT_FOUND 127

/*
 * Set the environment: LD_PRELOAD with our library in front (@library, or NULL:
 * beside this program, or where it was installed), and, when @ret_file is not
 * NULL, a file of reports, which is mapped there and has no name any more when
 * the program has ended.  0, or a negative errno, said.
 */
int run_program_prepare(const char *library, struct report_file **ret_file);

/*
 * Run @argv to its end, passing signals on.  Its exit status, 128 + the signal
 * that ended it, or RUN_..., said.
 */
int run_program(char **argv);

/* Why a program left no report: it is static, setuid, for another machine ... */
const char *run_program_why_not(const char *program);

#endif
