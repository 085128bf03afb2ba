/* SPDX-License-Identifier: MIT */
/*
 * holders.h - who has a block device, in words.
 *
 * For messages only: whether somebody has it, open(2) with O_EXCL says.
 */
#ifndef UBLKZC_SERVER_HOLDERS_H
#define UBLKZC_SERVER_HOLDERS_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Into @buf, cut short if need be: where @dev or a part of it is mounted or swapped to, and
 * which devices are above it or serve from it, as far as can be seen from here.  Never empty.
 */
void holders_describe(dev_t dev, char *buf, size_t size);

#endif
