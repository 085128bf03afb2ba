/* SPDX-License-Identifier: MIT */
/* verb_resize.c - "resize": the device grows with what is behind it. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"
#include "common/log.h"
#include "sizes.h"
#include "verbs.h"

static const char usage_text[] = "usage: ublkzc resize -n ID [--size SIZE]\n"
				 "\n"
				 "A file or block device: the device grows to what that is now.\n"
				 "null and mem: to SIZE. Devices do not shrink.\n";

static int resize(unsigned int device, uint64_t size)
{
	struct wire_request req;
	struct wire_reply reply;

	wire_request_init(&req, WIRE_RESIZE, 1);
	req.length = size;
	if (admin_ask(device, &req, &reply))
		return EXIT_FAILURE;
	if (reply.status) {
		log_error(reply.status, "/dev/ublkb%u keeps its %llu bytes: %s", device,
			  (unsigned long long)reply.max_bytes, wire_reason_text(reply.reason));
		return EXIT_FAILURE;
	}
	printf("/dev/ublkb%u: %llu bytes\n", device, (unsigned long long)reply.max_bytes);
	return 0;
}

int verb_resize(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "number", required_argument, NULL, 'n' },
		{ "size", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	uint64_t device = UINT64_MAX;
	uint64_t size = 0;
	int c;

	while ((c = getopt_long(argc, argv, "n:s:h", longs, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage_text, stdout);
			return 0;
		}
		if (c == 'n' && number_parse(optarg, 0, 1048575, &device) == 0)
			continue;
		if (c == 's' && size_parse(optarg, &size) == 0 && size)
			continue;
		if (c != '?')
			log_line(LOG_ERROR, "'%s': not a %s", optarg,
				 c == 'n' ? "device id" : "size like 512M or 2G");
		return EXIT_USAGE;
	}
	if (optind < argc || device == UINT64_MAX) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	return resize((unsigned int)device, size);
}
