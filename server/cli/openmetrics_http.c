/* SPDX-License-Identifier: MIT */
/*
 * openmetrics_http.c - see openmetrics_http.h.
 *
 * One request on standard input, one answer on standard output, and the end: nothing here
 * listens, forks or stays, so there is little that could go wrong or be attacked.
 */
#include "openmetrics_http.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "openmetrics.h"

#define CONTENT_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* The head of the request, its empty line included; 0, or why it is none. */
static int read_head(char *head, size_t size)
{
	long long until = now_ms() + HTTP_PATIENCE_MS;
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	size_t len = 0;

	while (len < size - 1) {
		long long left = until - now_ms();
		ssize_t got;

		if (left <= 0 || poll(&in, 1, (int)left) <= 0)
			return -ETIMEDOUT;
		got = read(STDIN_FILENO, head + len, size - 1 - len);
		if (got <= 0)
			return got ? -errno : -EPIPE;
		len += (size_t)got;
		head[len] = '\0';
		if (strlen(head) != len)
			return -EBADMSG;
		if (strstr(head, "\r\n\r\n") || strstr(head, "\n\n"))
			return 0;
	}
	return -EMSGSIZE;
}

static int answer(const char *status, const char *type, const char *body, size_t len, bool head)
{
	printf("HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: "
	       "close\r\n\r\n",
	       status, type, len);
	if (!head)
		fwrite(body, 1, len, stdout);
	return 0;
}

static int refuse(const char *status)
{
	return answer(status, "text/plain", status, strlen(status), false);
}

static int answer_metrics(const struct devices *devices, bool head)
{
	char *body = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&body, &len);
	int ret = out ? openmetrics_print(devices, out) : -ENOMEM;

	if (out && fclose(out))
		ret = -ENOMEM;
	ret = ret ? refuse("503 Service Unavailable")
		  : answer("200 OK", CONTENT_TYPE, body, len, head);
	free(body);
	return ret;
}

int openmetrics_http(const struct devices *devices)
{
	char head[HTTP_HEAD_MAX];
	char method[8], path[128];
	int ret = read_head(head, sizeof(head));

	if (ret == -EMSGSIZE)
		return refuse("431 Request Header Fields Too Large");
	if (ret == -ETIMEDOUT)
		return refuse("408 Request Timeout");
	if (ret && ret != -EBADMSG)
		return log_error(ret, "--http: no request");
	if (ret || sscanf(head, "%7s %127s HTTP/1.", method, path) != 2)
		return refuse("400 Bad Request");
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return refuse("405 Method Not Allowed");
	if (strcmp(path, "/metrics") != 0)
		return refuse("404 Not Found");
	return answer_metrics(devices, strcmp(method, "HEAD") == 0);
}
