/* SPDX-License-Identifier: MIT */
/* verb_resize.c - "resize": the device grows with what is behind it. */
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "admin.h"
#include "command.h"
#include "output.h"
#include "sizes.h"
#include "verbs.h"

struct wish {
	uint64_t size;
	bool bytes, json;
};

static int grow(unsigned int device, const struct wish *w)
{
	struct wire_request req;
	struct wire_reply reply;
	char text[OUTPUT_SIZE];

	wire_request_init(&req, WIRE_RESIZE, 1);
	req.length = w->size;
	if (admin_ask(device, &req, &reply))
		return EXIT_FAILURE;
	if (reply.reason == WIRE_NOT_ALLOWED) {
		log_line(LOG_ERROR, "/dev/ublkb%u: %s", device, wire_reason_text(reply.reason));
		return EXIT_FAILURE;
	}
	if (reply.status) {
		log_error(reply.status, "/dev/ublkb%u keeps its %llu bytes: %s", device,
			  (unsigned long long)reply.max_bytes, wire_reason_text(reply.reason));
		return EXIT_FAILURE;
	}
	if (w->json)
		return json_print("resized", json_pack("{s:i, s:I}", "device", (int)device, "size",
						       (json_int_t)reply.max_bytes))
			       ? EXIT_FAILURE
			       : 0;
	printf("/dev/ublkb%u: %s\n", device, size_text(text, reply.max_bytes, w->bytes));
	return 0;
}

static const struct flag flags[] = {
	FLAG_DEVICE,
	{ 's', "size", WORD_ANY, "SIZE", "for null and mem: bytes, or with k, M, G, T" },
	{ 'b', "bytes", WORD_NONE, NULL, "the new size in bytes" },
	FLAG_JSON('j'),
};

static int parse(struct command_line *line, struct devices *devices, unsigned int *device,
		 struct wish *w)
{
	int key;

	while ((key = command_next(line)) > 0) {
		if (key == 'n' && devices_add(devices, line->command, line->value))
			return LINE_BAD;
		w->bytes |= key == 'b';
		w->json |= key == 'j';
		if (key == 's' && (size_parse(line->value, &w->size) || !w->size))
			return command_error(line->command, "'%s' is not a size like 512M or 2G",
					     line->value);
	}
	return key ? key : devices_one(devices, line, device);
}

static int resize(const struct command *command, int argc, char **argv)
{
	struct devices devices = { 0 };
	struct command_line line;
	unsigned int device = 0;
	struct wish w = { 0 };
	int ret;

	command_begin(&line, command, argc, argv);
	ret = parse(&line, &devices, &device, &w);
	ret = ret ? command_status(ret) : grow(device, &w);
	devices_free(&devices);
	return ret;
}

const struct command command_resize = {
	.name = "resize",
	.summary = "let a live device grow",
	.operands = "DEVICE",
	.operand = WORD_DEVICE,
	.about = "With a file or block device behind it, the device grows to what that is now; "
		 "null and mem grow to --size. Devices do not shrink. Needs a driver that can "
		 "(Linux 6.16 and newer).",
	FLAGS(flags),
	.run = resize,
};
