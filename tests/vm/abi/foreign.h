/* SPDX-License-Identifier: MIT */
/* foreign.h - a server of foreign memory, which keeps what is written, for the tests of it. */
#ifndef UBLKZC_TESTS_ABI_FOREIGN_H
#define UBLKZC_TESTS_ABI_FOREIGN_H

#include "peer.h"

#define FOREIGN_FLAGS (ZC_FLAGS | UAPI_F_SHMEM_LIST | UAPI_F_SHMEM_FOREIGN | UAPI_F_SHMEM_HINTS)
#define FOREIGN_BUFS 4U
#define STORED (1UL << 20) /* bytes of the disk, from the beginning of the tests' part */

struct foreign {
	struct abi_server s;
	struct peer *peer;
	int event; /* that something has ended */
	uint8_t *maps[FOREIGN_BUFS];
	uint8_t stored[STORED];
};

/* Skips the test on a driver without it, and in a kernel that has no MMU notifiers. */
void requires_foreign(void);

/* A peer with @len bytes of private memory, and the device, which it has open. */
struct foreign *foreign_start(size_t len);
void foreign_end(struct foreign *f);

/* Register what the peer has there; the result. */
int foreign_reg(struct foreign *f, size_t at, size_t len);
/* The same, which must go well, and map it. */
unsigned int foreign_take(struct foreign *f, size_t at, size_t len);

/* What LIST says of that index; its flags, 0 if there is none. */
uint32_t foreign_flags(struct foreign *f, unsigned int index);
/* The buffer ends, the event says so, and in the end its pages are gone. */
void foreign_wait_ended(struct foreign *f, unsigned int index);
bool foreign_was_told(struct foreign *f);

/* Can the server touch that? */
bool foreign_is_mapped(struct foreign *f, unsigned int index, size_t at);

/* The peer reads, writes there: was it in place? */
bool foreign_read_in_place(struct foreign *f, size_t at, size_t len);
bool foreign_write_in_place(struct foreign *f, size_t at, size_t len);

#endif
