/* SPDX-License-Identifier: MIT */
/*
 * fault.h - the moments at which tests let the server die.
 *
 * Only in the program ublkzc-faults, which is built for the tests and never
 * installed: tests/faults/.
 */
#ifndef UBLKZC_SERVER_FAULT_H
#define UBLKZC_SERVER_FAULT_H

#ifdef UBLKZC_FAULTS
void fault_point(const char *name);
#define FAULT_POINT(name) fault_point(name)
#else
#define FAULT_POINT(name) ((void)0)
#endif

#endif
