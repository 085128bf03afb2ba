/* SPDX-License-Identifier: MIT */
/*
 * witness.h - is anybody left who inherited our memory copy-on-write?
 *
 * A page that children inherit as a shared mapping: the kernel refuses to seal a
 * memfd against writing while anyone at all maps it so, however it came to it and
 * whatever it closed meanwhile.
 */
#ifndef UBLKZC_PRELOAD_WITNESS_H
#define UBLKZC_PRELOAD_WITNESS_H

#include <stdbool.h>

/* From here on children are seen.  False: it cannot be done. */
bool witness_start(void);

/* Was it started, and not over yet? */
bool witness_active(void);

/* No child of the time since witness_start(), nor any of theirs, is alive with the
 * memory that it inherited.  True ends it. */
bool witness_gone(void);

/* In a child: it bears witness to its parent, but has none of its own. */
void witness_forget(void);

#endif
