/* SPDX-License-Identifier: MIT */
/*
 * resident.h - which parts of a file of memory have pages.
 *
 * Nothing is allocated by looking.  Any thread.
 */
#ifndef UBLKZC_SERVER_MEMORY_RESIDENT_H
#define UBLKZC_SERVER_MEMORY_RESIDENT_H

#include <stdbool.h>
#include <stdint.h>

/* Of a file in more pieces only the longer ones are told. */
#define RESIDENT_RUNS_MAX 1024U

struct memory_range {
	uint64_t offset, len; /* bytes */
};

struct resident {
	int fd;		    /* with a position of its own, which is moved */
	uint64_t huge_page; /* bytes, on hugetlbfs; else 0 */
	unsigned int nr;
	struct memory_range runs[RESIDENT_RUNS_MAX]; /* in order, apart */
	uint64_t shortest;			     /* that is told */
};

/* Bytes of a page of @fd's file if it is on hugetlbfs, else 0. */
uint64_t resident_huge_page(int fd);

/* Add the runs of [@offset, @offset + @len), which lies behind all that was looked at. */
void resident_look(struct resident *r, uint64_t offset, uint64_t len);

#endif
