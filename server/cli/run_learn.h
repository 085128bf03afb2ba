/* SPDX-License-Identifier: MIT */
/* run_learn.h - "run --learn": which of a program's memory must be captured? */
#ifndef UBLKZC_SERVER_CLI_RUN_LEARN_H
#define UBLKZC_SERVER_CLI_RUN_LEARN_H

/* With the library preloaded already.  The exit status. */
int run_learn(char **program);

/* Have the library look where that is written, unless somebody has said where it shall look. */
void run_learnt(void);

#endif
