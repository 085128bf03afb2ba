/* SPDX-License-Identifier: MIT */
/* sizes.h - numbers and byte counts as people write them. */
#ifndef UBLKZC_SERVER_SIZES_H
#define UBLKZC_SERVER_SIZES_H

#include <stdint.h>

/* "4096", "64k", "1M", "2GiB" (powers of 1024) -> bytes; -EINVAL or -ERANGE. */
int size_parse(const char *text, uint64_t *ret_bytes);

/* A decimal number in min..max; -EINVAL or -ERANGE. */
int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret);

#endif
