/* SPDX-License-Identifier: MIT */
/*
 * device.h - one ublk device from ADD_DEV to DEL_DEV.
 */
#ifndef UBLKZC_SERVER_DEVICE_H
#define UBLKZC_SERVER_DEVICE_H

#include "options.h"

/*
 * Create the device, serve it until SIGTERM or SIGINT (or until somebody else
 * stops it), remove it.  @ready is called once, when /dev/ublkbN is live.  Returns
 * 0 after an orderly end, else a negative errno with everything undone and the
 * reason logged.
 */
int device_serve(const struct options *options, void (*ready)(unsigned int device, void *arg),
		 void *arg);

#endif
