/* SPDX-License-Identifier: MIT */
/*
 * abi_server.h - the smallest ublk server, for testing the driver.
 *
 * One queue, one thread, no storage.  An unmatched READ is filled with
 * ABI_FILL; a matched one is left alone: so the client's buffer itself tells
 * whether a request was copied.  What the last request's descriptor said is
 * remembered, and requests can be held back.
 */
#ifndef UBLKZC_TESTS_ABI_SERVER_H
#define UBLKZC_TESTS_ABI_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/device/ctrl.h"

#define ABI_DEPTH 16U
#define ABI_DEVICE_BYTES (64ULL << 20)
#define ABI_IO_BYTES (1U << 20)
#define ABI_ZONE_BYTES (4ULL << 20) /* of a device with UBLK_F_ZONED */
#define ABI_FILL 0xee

/* The tests' own I/O is here; the kernel's partition scan, which may come at any time
 * after the start, reads elsewhere: it is served, but neither held nor counted. */
#define ABI_TEST_OFFSET (32ULL << 20)
#define ABI_TEST_BYTES (16ULL << 20)
#define ABI_SLOW_OFFSET (40ULL << 20) /* in the tests' part */

struct abi_server {
	struct ctrl ctrl;
	unsigned int device;
	uint64_t flags; /* as the driver left them */
	int char_fd;
	int disk_fd; /* /dev/ublkbN, O_DIRECT, once started */
	bool started;
	bool unprivileged; /* commands name the device by its path */
	uint8_t *buffers;  /* without USER_COPY: ABI_IO_BYTES per tag */
	pthread_t thread;
	pid_t child; /* serves, in place of the thread */
	atomic_bool ready;
	atomic_bool hold;      /* keep requests until this is false */
	atomic_uint hold_slow; /* keep so many of those at ABI_SLOW_OFFSET and behind */
	atomic_uint nr_held;   /* are kept now */
	atomic_bool halve;     /* complete matched requests with half their bytes */
	/* With UBLKZC_F_SHMEM_SEGS: where the driver puts lists, one after the other by tag,
	 * and the last list there was. */
	struct uapi_shmem_seg *lists;
	atomic_bool no_lists; /* name none from now on */
	struct uapi_shmem_seg last_list[UAPI_SHMEM_SEGS_MAX];
	atomic_ullong nr_listed;
	/* Serves the tests' own reads and writes, if set; the result of the request. */
	int (*handler)(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag);
	_Atomic uint32_t last_op_flags;
	_Atomic uint64_t last_addr;
	_Atomic uint32_t last_bytes;
	atomic_ullong nr_matched;
	atomic_ullong nr_copied;
	atomic_uint bad_index;	       /* index or offset that no test registered */
	unsigned int pages_per_buffer; /* for that check; 0: not checked */
};

/* ADD_DEV with @flags; no disk yet.  0 or a negative errno. */
int abi_add(struct abi_server *s, uint64_t flags);
/* Serve, START_DEV, open the disk. */
void abi_start(struct abi_server *s);
/* The same, served by @serve(@s): it sets ready, and returns when the device is stopped. */
void abi_start_with(struct abi_server *s, void *(*serve)(void *));
/*
 * The same with a process of its own as server, which may die; @s must be in memory that both
 * share. Then the disk waits (with UBLK_F_USER_RECOVERY) until another one is recovered.
 */
void abi_start_process(struct abi_server *s);
void abi_kill_process(struct abi_server *s);
/* In two steps, for what a test does in between. */
void abi_begin_recovery(struct abi_server *s);
void abi_end_recovery(struct abi_server *s);
/* STOP_DEV if started, DEL_DEV. */
void abi_del(struct abi_server *s);

/* For handlers: fill in a read, fetch a write, that did not match. */
void abi_give(struct abi_server *s, uint16_t tag, const void *data, uint32_t bytes);
void abi_take(struct abi_server *s, uint16_t tag, void *data, uint32_t bytes);

/* One control command, whatever its arguments; the raw result. */
int abi_command(struct abi_server *s, unsigned int cmd_op, unsigned int device, uint64_t addr,
		uint16_t len, uint64_t data);
int abi_reg(struct abi_server *s, void *addr, uint64_t len, uint32_t flags);
int abi_unreg(struct abi_server *s, uint64_t index);

#endif
