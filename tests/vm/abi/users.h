/* SPDX-License-Identifier: MIT */
/* users.h - devices of ordinary users, for tests that run as root. */
#ifndef UBLKZC_TESTS_ABI_USERS_H
#define UBLKZC_TESTS_ABI_USERS_H

#include "abi_helpers.h"

#define USER 65534U
#define OTHER_USER 65533U
#define LIMIT 64U /* pages that they may lock */

/* In memory shared with the users' processes. */
struct both {
	struct abi_server s;
	uint8_t pages[2 * LIMIT * PAGE] __attribute__((aligned(4096)));
};

/* @step in a process of @uid; it returns 0, or the number of its line that failed. */
void as_user(unsigned int uid, int (*step)(struct both *b), struct both *b);

/* Lines go to 255: an exit status has no room for more. */
#define EXPECT(what, result)                                                                       \
	do {                                                                                       \
		if ((what) != (result))                                                            \
			return __LINE__;                                                           \
	} while (0)

/* A device that USER added and whose char device is USER's. */
struct both *add_users_device(void);
void delete_users_device(struct both *b);

#endif
