/* SPDX-License-Identifier: MIT */
/*
 * openmetrics_http.h - "stat --openmetrics - --http": the same as an answer to HTTP.
 *
 * For a socket that systemd (or inetd) listens on: packaging/ublkzc-metrics.socket.
 */
#ifndef UBLKZC_SERVER_CLI_OPENMETRICS_HTTP_H
#define UBLKZC_SERVER_CLI_OPENMETRICS_HTTP_H

#include "command.h"

#define HTTP_HEAD_MAX 8192     /* bytes of a request's head */
#define HTTP_PATIENCE_MS 10000 /* for all of it to arrive */

/*
 * Read one request from standard input and answer it on standard output.  0 when there was an
 * answer, be it a refusal; else a negative errno, said.
 */
int openmetrics_http(const struct devices *devices);

#endif
