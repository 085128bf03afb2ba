/* SPDX-License-Identifier: MIT */
/* abi_helpers.h - what the tests of the driver do over and over. */
#ifndef UBLKZC_TESTS_ABI_HELPERS_H
#define UBLKZC_TESTS_ABI_HELPERS_H

#include <stddef.h>

#include "abi_server.h"

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define ZC_FLAGS (UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_SHMEM_ZC)

bool is_ours(void);

void *shared_pages(size_t nr);

/* A file of memory, open, and where it is mapped whole. */
int memory_file(size_t bytes, unsigned int memfd_flags);
uint8_t *map_file(int fd, size_t bytes);
/* The physical page at @p, as root may know it. */
uint64_t frame_of(const void *p);
/* HUGE bytes of it, gathered into one huge page; NULL if that cannot be had. */
uint8_t *map_huge_page(int fd);

/* Pages pinned for the long term, by anybody. */
long long pinned(void);
void assert_nothing_pinned(void);

void add_zc(struct abi_server *s);

/* Does the driver offer all of @bits? */
bool offers_feature(uint64_t bits);
/* For extensions of ours: skips the test on a driver without feature @bit. */
void requires_feature(uint64_t bit);
void add_with(struct abi_server *s, uint64_t flags);

/* A device whose server is a process (abi_start_process()), and its end. */
struct abi_server *start_mortal(uint64_t flags);
void end_mortal(struct abi_server *s);
/* REG_BUF with any arguments at all. */
int reg_raw(struct abi_server *s, uint64_t addr, uint64_t len, uint32_t flags, uint32_t reserved);

/* Read into @buf; was it left as it was (matched), or filled (copied)? */
bool read_matches(struct abi_server *s, uint8_t *buf, size_t len);
bool write_matches(struct abi_server *s, const uint8_t *buf, size_t len);
/* Let the block layer merge neighbouring requests, which the server switched off. */
void allow_merging(const struct abi_server *s);
void assert_last(const struct abi_server *s, int index, uint32_t offset);

/* For threads of their own. */
struct unreg_call {
	struct abi_server *s;
	unsigned int index;
	atomic_int res; /* 1: not back yet */
};
void *unreg_thread(void *call);

struct read_call {
	struct abi_server *s;
	uint8_t *buf;
	size_t len;
	off_t at; /* in the tests' part of the disk */
	long res;
};
void *read_thread(void *call);

#endif
