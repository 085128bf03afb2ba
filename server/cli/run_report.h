/* SPDX-License-Identifier: MIT */
/* run_report.h - the file in which a program's processes keep their reports. */
#ifndef UBLKZC_SERVER_RUN_REPORT_H
#define UBLKZC_SERVER_RUN_REPORT_H

#include "common/report.h"

/* Make the file and name it in UBLKZC_STATS_FILE.  0, or a negative errno, said. */
int run_report_make(void);

/*
 * Remove the file.  What was in it, for the caller to free; NULL when there is
 * none, or when the program spoilt it.  Nothing in it is to be trusted but the
 * ends of its strings.
 */
struct report_file *run_report_take(void);

#endif
