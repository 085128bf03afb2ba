/* SPDX-License-Identifier: MIT */
/* features.h - names of the driver's feature bits. */
#ifndef UBLKZC_SERVER_FEATURES_H
#define UBLKZC_SERVER_FEATURES_H

/* Name of feature bit @bit (0..63), or NULL when this version has none. */
const char *feature_name(unsigned int bit);

#endif
