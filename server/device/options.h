/* SPDX-License-Identifier: MIT */
/*
 * options.h - what a device is to be, as its command line said (cli/add_options.h).
 */
#ifndef UBLKZC_SERVER_OPTIONS_H
#define UBLKZC_SERVER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <ublkzc/engine.h>


#define OPTIONS_SHM_FILES_MAX 16
#define OPTIONS_SETTINGS_MAX 32
#define OPTIONS_DEPTH_MAX 4096 /* UBLK_MAX_QUEUE_DEPTH */
#define OPTIONS_QUEUES_MAX 32
#define OPTIONS_MAX_IO_MAX (32U << 20) /* bytes; UBLK_IO_BUF_BITS */

/* What happens to I/O between a server's death and its successor. */
enum recovery {
	RECOVERY_REISSUE, /* it waits; what the dead server had not finished is done again */
	RECOVERY_FAIL,	  /* it fails */
	RECOVERY_NONE,	  /* the device dies with its server */
};

struct options {
	const struct ublkzc_engine *engine;
	const char *engine_name; /* as it was given: perhaps a file */
	const char *path;
	int device; /* -1: the kernel chooses */
	unsigned int nr_queues;
	unsigned int depth;
	uint64_t size;	     /* bytes; 0: not given */
	uint32_t block_size; /* bytes; 0: not given */
	uint32_t max_io;     /* bytes */
	bool read_only;
	bool copy_only; /* do not ask for shared-memory zero copy */
	bool merges;	/* leave merging of neighbouring requests on */
	bool verbose;
	enum recovery recovery;
	const char *shm_files[OPTIONS_SHM_FILES_MAX];
	unsigned int nr_shm_files;
	const char *settings[OPTIONS_SETTINGS_MAX]; /* -o: "name=value" */
	unsigned int nr_settings;
	uint64_t max_client_bytes; /* 0: default */
	uint64_t max_bytes;	   /* 0: default */
	uint64_t max_user_bytes;   /* 0: default */
	unsigned int max_clients;
	unsigned int max_user_clients;
	unsigned int max_buffers;
};

/* What the engine is told of them, to be freed; paths and values are borrowed.  0 or -errno. */
int options_make_target(const struct options *o, struct ublkzc_target *ret);
void options_free_target(struct ublkzc_target *target);

#endif
