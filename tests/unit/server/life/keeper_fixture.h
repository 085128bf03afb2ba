/* SPDX-License-Identifier: MIT */
/*
 * keeper_fixture.h - a keeper as a process, and a diary that all its servers write, for the tests
 * of keepers.
 */
#ifndef UBLKZC_TESTS_KEEPER_FIXTURE_H
#define UBLKZC_TESTS_KEEPER_FIXTURE_H

#include <sys/types.h>

#include "server/life/keeper.h"

#define DIARY_MAX 1024

extern char diary[96]; /* its path */

void write_diary(const char *text);
void read_diary(char text[DIARY_MAX]);
void expect_diary(const char *want);

/* The keeper of @start, whose first server writes to the diary when it is "ready". */
pid_t start_keeper(struct keeper_start *start);
int status_of(pid_t keeper);

#endif
