/* SPDX-License-Identifier: MIT */
/* cluster.h - the connection to a Ceph cluster.  Control thread. */
#ifndef UBLKZC_RBD_CLUSTER_H
#define UBLKZC_RBD_CLUSTER_H

#include "disk.h"

/* d->cluster; or a negative errno, and why in words.  Takes up to options.connect_timeout. */
int cluster_connect(struct disk *d, char *why, size_t size);

/* From now on what is asked of the cluster fails when there is no answer in time; or waits. */
void cluster_set_patience(struct disk *d, bool for_ever);

/*
 * What the clients with these addresses, one a line, had asked for and was not done yet is never
 * done.  0 or a negative errno, and why in words.
 */
int cluster_cut_off(struct disk *d, const char *addresses, char *why, size_t size);

/* This client's; free with rados_buffer_free().  NULL: not known. */
char *cluster_own_address(struct disk *d);

#endif
