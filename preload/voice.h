/* SPDX-License-Identifier: MIT */
/*
 * voice.h - where the shim may say something.
 *
 * Descriptor 2 is the program's: what it opens there after closing standard error may be
 * its data.  So a line goes to a terminal, or to the standard error that the program
 * was started with.  To know that one again costs a system call at the start, so it is
 * done for those who asked for lines (UBLKZC_LOG, UBLKZC_STATS, ublkzc run); else,
 * once the program runs, only terminals are told.
 */
#ifndef UBLKZC_PRELOAD_VOICE_H
#define UBLKZC_PRELOAD_VOICE_H

#include <stdbool.h>

/* The program is about to run. @known: its standard error is to be known again.  @kept:
 * a copy of it is to be kept too, for the summary: coreutils, for one, close theirs
 * before they end. */
void voice_start(bool known, bool kept);

/* What is said from here on goes to that copy, if it is there. */
void voice_of_summary(void);

#endif
