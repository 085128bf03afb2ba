/* SPDX-License-Identifier: MIT */
/* server_internal.h - a server's clients being served, for the files of this folder. */
#ifndef UBLKZC_SERVER_LIBRARY_SERVER_INTERNAL_H
#define UBLKZC_SERVER_LIBRARY_SERVER_INTERNAL_H

#include "server/device/ctrl.h"
#include "server/session/listener.h"
#include "ublkzc/server.h"

struct ublkzc_server {
	struct ublkzc_server_options options;
	struct ctrl ctrl; /* fd -1: the server sends the commands */
	struct registry registry;
	struct registry_alarm alarm;
	struct buffers buffers;
	struct listener listener;
	int epoll;
	int timer;
	bool lists; /* the driver says what it has */
	bool waits; /* for the device to be live: ublkzc_server_live() */
	bool stopped;
	/* For any thread: */
	_Atomic(uint64_t) copied;
	_Atomic(uint64_t) clients, nr_buffers, bytes, refused;
};

/* server.c: dispatch() is called again in @ms.  0 or a negative errno. */
int server_wake_in(const struct ublkzc_server *s, int ms);

/* driver.c: the driver as buffers know it. */
int server_open_driver(struct ublkzc_server *s);
int server_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie);
int server_unreg(void *arg, unsigned int index, void *cookie);
int server_list(void *arg, unsigned int first, struct uapi_shmem_buf_info *ret, unsigned int nr);
/* Take the answers there are. */
void server_collect(struct ublkzc_server *s);

/* server.c: nothing is logged before the server asks for it. */
void server_ask_to_log(void);

#endif
