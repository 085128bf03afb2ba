/* SPDX-License-Identifier: MIT */
/* features.h - which driver it is, and names of its feature bits. */
#ifndef UBLKZC_SERVER_FEATURES_H
#define UBLKZC_SERVER_FEATURES_H

#include <stddef.h>

/*
 * Whose driver this is, in words for people, in @text.  @version: of the loaded module,
 * "" when it has none, as the kernel's own; @release: of the running kernel.
 */
void driver_describe(char *text, size_t size, const char *version, const char *release);

/* The version of the ublk_drv that is loaded, in @version; "" when it has none. */
void driver_version(char *version, size_t size);

/* Name of feature bit @bit (0..63), or NULL when this version has none. */
const char *feature_name(unsigned int bit);

#endif
