/* SPDX-License-Identifier: MIT */
/* spec.h - which image: POOL[/NAMESPACE]/IMAGE[@SNAPSHOT], as Ceph's own programs have it. */
#ifndef UBLKZC_RBD_SPEC_H
#define UBLKZC_RBD_SPEC_H

#include <stddef.h>

#define SPEC_MAX 512U /* characters */

struct spec {
	char text[SPEC_MAX]; /* what the others point into */
	const char *pool, *image;
	const char *name_space; /* "": the pool's own */
	const char *snapshot;	/* NULL: none */
};

/* 0; or -EINVAL and what is wrong in @why.  @ret is not to be copied. */
int spec_parse(const char *text, struct spec *ret, char *why, size_t size);

#endif
