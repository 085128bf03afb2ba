/* SPDX-License-Identifier: MIT */
/*
 * device.h - one ublk device from ADD_DEV to DEL_DEV.
 */
#ifndef UBLKZC_SERVER_DEVICE_H
#define UBLKZC_SERVER_DEVICE_H

#include "server/life/vault.h"
#include "options.h"

/*
 * Create the device, serve it until SIGTERM or SIGINT (or until somebody else
 * stops it), remove it.  @ready is called once, when /dev/ublkbN is live.  Returns
 * 0 after an orderly end, else a negative errno with everything undone and the
 * reason logged.
 */
int device_serve(const struct options *options, struct vault *vault,
		 void (*ready)(unsigned int device, void *arg), void *arg);

/*
 * The same for a device whose server died, with what it left in the vault; or
 * (@number >= 0) with no more than what the driver knows.  On an error the device
 * waits on, and the caller must end the process.  -ENODEV: there is no such device; -ENODATA: what
 * was on it is lost.
 */
int device_recover(const struct options *options, struct vault *vault, int number,
		   void (*ready)(unsigned int device, void *arg), void *arg);

/* Has the driver the device @number, and can it be given another server? */
bool device_is_recoverable(unsigned int number);

/*
 * Could this program take over what is in the vault?  Looks, and changes nothing.  0 when it
 * could; -EPROTO: not these records; -EBADMSG: not this state; or another error, all logged.
 */
int device_rehearse(struct vault *vault);

#endif
