/* SPDX-License-Identifier: MIT */
/*
 * watch.h - which of the descriptors that a program opens are on ublk disks.
 *
 * Both preserve errno.
 */
#ifndef UBLKZC_PRELOAD_WATCH_H
#define UBLKZC_PRELOAD_WATCH_H

/* @fd was opened with, or has got, O_DIRECT: make a session with its server. */
void watch_direct(int fd);

/* @path was opened as @fd without O_DIRECT: count it if it is on a ublk disk. */
void watch_buffered(const char *path, int fd);

#endif
