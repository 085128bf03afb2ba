/* SPDX-License-Identifier: MIT */
/* device_internal.h - a device being served, for the files device*.c. */
#ifndef UBLKZC_SERVER_DEVICE_INTERNAL_H
#define UBLKZC_SERVER_DEVICE_INTERNAL_H

#include "server/life/state.h"
#include "server/life/vault.h"
#include "server/memory/buffers.h"
#include "server/memory/registry.h"
#include "server/queue/queue.h"
#include "server/session/listener.h"
#include "ctrl.h"
#include "device.h"
#include "handover.h"

struct device {
	const struct options *options;
	const struct ublkzc_engine *engine;
	struct ublkzc_target target;
	bool opened;	       /* close() is due */
	_Atomic uint64_t size; /* bytes; may grow */
	struct ctrl ctrl;
	struct ublksrv_ctrl_dev_info info;
	bool added;
	bool locked; /* lock.h */
	bool started;
	bool shmem_zc;
	int char_fd;
	/* A predecessor's, or -1. */
	int backing_fd;
	int socket_fd;
	int legacy_fd;
	int signal_fd;
	int done_fd;
	struct state *state;
	struct vault *vault;
	struct registry registry;
	struct registry_alarm alarm;
	struct buffers buffers;
	struct listener listener;
	struct handover handover;
	unsigned int rescues; /* that are seen to */
	bool stop_asked; /* by root, over the socket */
	bool listening;
	struct queue *queues;
	unsigned int nr_started; /* queues to join */
	int shm_result;		 /* of the --shm-file being registered */
};

/* Steps of setting up; 0 or a negative errno that was logged.  device_process.c: */
int device_open_events(struct device *d);
/* device_files.c: */
int device_take_lock(struct device *d);
int device_create_state(struct device *d);
/* device_queues.c: */
int device_start_queues(struct device *d);
/* device_target.c: */
int device_open_target(struct device *d);
int device_fence(struct device *d); /* of a device whose server died */
void device_close_target(struct device *d);
/* device_driver.c: */
int device_add(struct device *d);
int device_open_char(struct device *d);
/* device_memory.c: */
int device_open_listener(struct device *d);
int device_register_shm_files(struct device *d);

/* device_recover.c: the same for a device whose server died. */
int device_inherit(struct device *d);			 /* from the vault */
int device_adopt(struct device *d, unsigned int number); /* by hand */

/* A listener's stop; @host is the device. */
void device_stop(void *host);

/* device_resize.c: a listener's resize, likewise. */
int device_resize(void *host, uint64_t *size, enum wire_reason *ret_reason);

/*
 * device_memory.c: unregister what a dead server had registered, of which there are no records; what is
 * below @indices if the driver cannot say.  The device has resumed.
 */
void device_drop_unknown(struct device *d, unsigned int indices);

/* device_memory.c: hand results of the driver to the buffers that they are for. */
void device_collect(struct device *d);
/* And see what the queues have let go of since. */
void device_recalled(struct device *d);

#endif
