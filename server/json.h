/* SPDX-License-Identifier: MIT */
/* json.h - the one thing about JSON that needs care. */
#ifndef UBLKZC_SERVER_JSON_H
#define UBLKZC_SERVER_JSON_H

#include <stdio.h>

/* @text in quotes, escaped.  Bytes of 128 and up are passed as they are. */
void json_string(FILE *out, const char *text);

#endif
