/* SPDX-License-Identifier: MIT */
/*
 * logging.h - what a line of ours begins with, by who reads it.
 *
 * The journal wants a priority, which it takes off again (sd-daemon(3)); a file wants to know
 * when; a terminal wants neither.
 */
#ifndef UBLKZC_SERVER_LOGGING_H
#define UBLKZC_SERVER_LOGGING_H

/* Standard error is whatever we were started with: the journal's priority if it is the journal. */
void logging_begin(void);

/* It is a log file from now on: each line begins with the time, UTC, and the level. */
void logging_to_file(void);

#endif
