/* SPDX-License-Identifier: MIT */
/*
 * ctrl.h - commands to /dev/ublk-control.
 *
 * Synchronous commands wait for their answer.  The two that may take long on
 * a live device, registering and unregistering memory, are asynchronous:
 * submit, watch ctrl_fd() for reading, collect.  One thread at a time.
 */
#ifndef UBLKZC_SERVER_CTRL_H
#define UBLKZC_SERVER_CTRL_H

#include <liburing.h>
#include <sched.h>
#include <stdint.h>

#include "common/uapi.h"

/* A completion that came while a synchronous command was waited for. */
struct ctrl_early {
	uint64_t cookie;
	int res;
};

struct ctrl {
	struct io_uring ring;
	int fd;			  /* /dev/ublk-control */
	struct ctrl_early *early; /* malloc'ed */
	unsigned int nr_early;
	unsigned int next_early; /* to be collected */
	unsigned int max_early;	 /* there is room for */
	unsigned int nr_async;	 /* asynchronous commands that the driver has */
};

#define CTRL_CLOSED ((struct ctrl){ .fd = -1 })

/*
 * Logs why not: the module is not loaded, no permission, io_uring disabled.
 */
int ctrl_open(struct ctrl *c);
void ctrl_close(struct ctrl *c);

/*
 * For a thread that does storage I/O through io_uring itself: its rings have workers in common, a few for
 * each processor, and an asynchronous command here has one until requests are finished that
 * may wait for a worker.  Let there be one more.
 */
void ctrl_add_worker(struct ctrl *c);

/* Kernel's feature bits; -EOPNOTSUPP before 6.5. */
int ctrl_get_features(struct ctrl *c, uint64_t *ret);

/* @info: in: dev_id (-1: any), queues, depth, flags ...; out: what it became. */
int ctrl_add_dev(struct ctrl *c, struct ublksrv_ctrl_dev_info *info);
int ctrl_get_info(struct ctrl *c, unsigned int device, struct ublksrv_ctrl_dev_info *ret);
int ctrl_set_params(struct ctrl *c, unsigned int device, struct uapi_params *params);
int ctrl_start_dev(struct ctrl *c, unsigned int device, int server_pid);
int ctrl_stop_dev(struct ctrl *c, unsigned int device);
/* Returns at once, and the number is free when nobody has the disk open any more; before
 * Linux 6.9 it waits for that. */
int ctrl_del_dev(struct ctrl *c, unsigned int device);
int ctrl_get_params(struct ctrl *c, unsigned int device, struct uapi_params *ret);

/* The processors whose requests come to @queue.  After ctrl_add_dev(). */
int ctrl_get_affinity(struct ctrl *c, unsigned int device, unsigned int queue, cpu_set_t *ret);

int ctrl_update_size(struct ctrl *c, unsigned int device, uint64_t sectors);

/* -EBUSY: the driver has not noticed yet that the server is gone. */
int ctrl_start_recovery(struct ctrl *c, unsigned int device);
/* Waits until all queues have fetched. */
int ctrl_end_recovery(struct ctrl *c, unsigned int device, int server_pid);

/*
 * Asynchronous: 0 when submitted; then ctrl_collect() yields @cookie once.
 * @reg must live until then.
 */
int ctrl_reg_buf(struct ctrl *c, unsigned int device, const struct uapi_shmem_buf_reg *reg,
		 void *cookie);
int ctrl_unreg_buf(struct ctrl *c, unsigned int device, unsigned int index, void *cookie);

/*
 * With UAPI_F_SHMEM_LIST: describe the registered buffers from index @first upwards, at most
 * @nr (and as many as 64 KiB hold).  How many there are in @ret, 0 when there are no more.
 */
int ctrl_list_bufs(struct ctrl *c, unsigned int device, unsigned int first,
		   struct uapi_shmem_buf_info *ret, unsigned int nr);

int ctrl_fd(const struct ctrl *c);

/* Has something for ctrl_collect() that makes ctrl_fd() not readable. */
bool ctrl_has_early(const struct ctrl *c);

/* One finished asynchronous command: 1 with its cookie and result, else 0. */
int ctrl_collect(struct ctrl *c, void **ret_cookie, int *ret_res);

#endif
