/* SPDX-License-Identifier: MIT */
/* options.c - see options.h. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "sizes.h"

#define NULL_SIZE_DEFAULT (250ULL << 30)

enum long_only {
	OPT_SIZE = 256,
	OPT_BLOCK_SIZE,
	OPT_MAX_IO,
	OPT_BUFFERED,
	OPT_FORCE,
	OPT_COPY_ONLY,
	OPT_MERGES,
	OPT_SHM_FILE,
	OPT_MAX_CLIENTS,
	OPT_MAX_BUFFERS,
	OPT_MAX_CLIENT_BYTES,
	OPT_MAX_BYTES,
	OPT_MAX_USER_CLIENTS,
	OPT_MAX_USER_BYTES,
	OPT_RECOVERY,
};

struct option_row {
	int value; /* a letter, or enum long_only */
	const char *name;
	const char *argument; /* NULL: takes none */
	const char *help;
};

static const struct option_row rows[] = {
	{ 't', "target", "TARGET", "where the bytes live (below); required" },
	{ 'n', "number", "ID", "N of /dev/ublkbN; default: the first that is free" },
	{ 'q', "queues", "NR", "hardware queues, each served by a thread; 1..32, default 1" },
	{ 'd', "depth", "NR", "requests in flight per queue; 1..4096, default 128" },
	{ 'r', "read-only", NULL, "clients cannot write" },
	{ OPT_SIZE, "size", "SIZE", "of a null or mem device: bytes, or with k, M, G, T" },
	{ OPT_BLOCK_SIZE, "block-size", "BYTES", "logical block size: 512, 1024, 2048 or 4096" },
	{ OPT_MAX_IO, "max-io", "SIZE", "largest request; 4k..32M, default 1M" },
	{ OPT_BUFFERED, "buffered", NULL, "file: use the page cache, not direct I/O" },
	{ OPT_FORCE, "force", NULL,
	  "file: also a block device that is mounted or otherwise in use" },
	{ OPT_COPY_ONLY, "copy-only", NULL, "no shared-memory zero copy, to compare" },
	{ OPT_MERGES, "merges", NULL,
	  "let the kernel merge neighbouring requests; merged ones are copied" },
	{ OPT_SHM_FILE, "shm-file", "FILE",
	  "register a hugetlbfs or tmpfs file that clients map themselves; may be repeated" },
	{ OPT_MAX_CLIENTS, "max-clients", "NR", "connections of clients; default 4096" },
	{ OPT_MAX_USER_CLIENTS, "max-user-clients", "NR",
	  "connections of one user, root excepted; default: half of --max-clients" },
	{ OPT_MAX_BUFFERS, "max-buffers", "NR", "registered buffers per client; default 256" },
	{ OPT_MAX_CLIENT_BYTES, "max-client-bytes", "SIZE",
	  "registered memory per client; default: half of the machine's" },
	{ OPT_MAX_USER_BYTES, "max-user-bytes", "SIZE",
	  "registered memory per user, root excepted; default: half of the machine's" },
	{ OPT_MAX_BYTES, "max-bytes", "SIZE",
	  "registered memory in all; default: three quarters of the machine's" },
	{ OPT_RECOVERY, "recovery", "MODE",
	  "when the server dies: reissue (I/O waits for its successor; default), fail (I/O fails "
	  "until then) or none (the device dies too)" },
	{ 'v', "verbose", NULL, "say more about what happens" },
	{ 'h', "help", NULL, "this text" },
};

#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

void options_help(const char *verb)
{
	printf("usage: ublkzc %s -t TARGET [options] [PATH]\n\n", verb);
	for (unsigned int i = 0; i < NR_ROWS; i++) {
		char left[64];

		if (rows[i].value < 256)
			snprintf(left, sizeof(left), "-%c, --%s%s%s", rows[i].value, rows[i].name,
				 rows[i].argument ? " " : "",
				 rows[i].argument ? rows[i].argument : "");
		else
			snprintf(left, sizeof(left), "    --%s%s%s", rows[i].name,
				 rows[i].argument ? " " : "",
				 rows[i].argument ? rows[i].argument : "");
		printf("  %-29s %s\n", left, rows[i].help);
	}
	printf("\ntargets:\n");
	for (unsigned int i = 0; targets[i]; i++)
		printf("  %-29s %s\n", targets[i]->name, targets[i]->help);
}

static int bad_value(const struct option_row *row, const char *value, const char *want)
{
	return log_error(-EINVAL, "--%s '%s': %s", row->name, value, want);
}

static int set_number(const struct option_row *row, const char *value, uint64_t min, uint64_t max,
		      unsigned int *ret)
{
	uint64_t n;
	char want[64];

	if (number_parse(value, min, max, &n)) {
		snprintf(want, sizeof(want), "wants a whole number from %llu to %llu",
			 (unsigned long long)min, (unsigned long long)max);
		return bad_value(row, value, want);
	}
	*ret = (unsigned int)n;
	return 0;
}

static int set_size(const struct option_row *row, const char *value, uint64_t *ret)
{
	if (size_parse(value, ret) || !*ret)
		return bad_value(row, value, "wants a size like 4096, 64k, 512M or 2G");
	return 0;
}

static int set_target(struct options *o, const char *name)
{
	o->target = target_find(name);
	if (!o->target)
		return log_error(-EINVAL, "unknown target '%s' (ublkzc add --help lists them)",
				 name);
	return 0;
}

static int set_block_size(struct options *o, const struct option_row *row, const char *value)
{
	unsigned int n = 0;
	int ret = set_number(row, value, 512, 4096, &n);

	if (ret)
		return ret;
	if (n & (n - 1))
		return bad_value(row, value, "wants 512, 1024, 2048 or 4096");
	o->block_size = n;
	return 0;
}

static int set_max_io(struct options *o, const struct option_row *row, const char *value)
{
	uint64_t size;
	int ret = set_size(row, value, &size);

	if (ret)
		return ret;
	if (size < 4096 || size > OPTIONS_MAX_IO_MAX || size % 4096)
		return bad_value(row, value, "wants a multiple of 4096 from 4k to 32M");
	o->max_io = (uint32_t)size;
	return 0;
}

static int set_recovery(struct options *o, const struct option_row *row, const char *value)
{
	static const char *const modes[] = { "reissue", "fail", "none" };

	for (unsigned int i = 0; i < 3; i++) {
		if (strcmp(value, modes[i]) == 0) {
			o->recovery = (enum recovery)i;
			return 0;
		}
	}
	return bad_value(row, value, "wants reissue, fail or none");
}

static int add_shm_file(struct options *o, const char *path)
{
	if (o->nr_shm_files == OPTIONS_SHM_FILES_MAX)
		return log_error(-EINVAL, "more than %u --shm-file options", OPTIONS_SHM_FILES_MAX);
	o->shm_files[o->nr_shm_files++] = path;
	return 0;
}

static int apply(struct options *o, const struct option_row *row, const char *value)
{
	unsigned int n = 0;
	int ret;

	switch (row->value) {
	case 't':
		return set_target(o, value);
	case 'n':
		ret = set_number(row, value, 0, 1048575, &n);
		o->device = (int)n;
		return ret;
	case 'q':
		return set_number(row, value, 1, OPTIONS_QUEUES_MAX, &o->nr_queues);
	case 'd':
		return set_number(row, value, 1, OPTIONS_DEPTH_MAX, &o->depth);
	case 'r':
		o->read_only = true;
		return 0;
	case OPT_SIZE:
		return set_size(row, value, &o->size);
	case OPT_BLOCK_SIZE:
		return set_block_size(o, row, value);
	case OPT_MAX_IO:
		return set_max_io(o, row, value);
	case OPT_BUFFERED:
		o->buffered = true;
		return 0;
	case OPT_FORCE:
		o->force = true;
		return 0;
	case OPT_COPY_ONLY:
		o->copy_only = true;
		return 0;
	case OPT_MERGES:
		o->merges = true;
		return 0;
	case OPT_SHM_FILE:
		return add_shm_file(o, value);
	case OPT_MAX_CLIENTS:
		return set_number(row, value, 1, 65536, &o->max_clients);
	case OPT_MAX_USER_CLIENTS:
		return set_number(row, value, 1, 65536, &o->max_user_clients);
	case OPT_MAX_USER_BYTES:
		return set_size(row, value, &o->max_user_bytes);
	case OPT_MAX_BUFFERS:
		return set_number(row, value, 1, 65535, &o->max_buffers);
	case OPT_MAX_CLIENT_BYTES:
		return set_size(row, value, &o->max_client_bytes);
	case OPT_MAX_BYTES:
		return set_size(row, value, &o->max_bytes);
	case OPT_RECOVERY:
		return set_recovery(o, row, value);
	default:
		o->verbose = true;
		return 0;
	}
}

/* What the options say together. */
static int check(struct options *o, int argc, char **argv)
{
	if (!o->target)
		return log_error(-EINVAL, "no target given: -t null, -t mem or -t file");
	if (o->target->takes_path && optind < argc)
		o->path = argv[optind++];
	if (o->target->takes_path && !o->path)
		return log_error(-EINVAL, "target '%s' needs a PATH", o->target->name);
	if (optind < argc)
		return log_error(-EINVAL, "unexpected argument '%s'", argv[optind]);
	if (o->size && !o->target->takes_size)
		return log_error(-EINVAL, "--size is not for target '%s': its size is that of PATH",
				 o->target->name);
	if (o->target == &target_mem && !o->size)
		return log_error(-EINVAL, "target 'mem' needs --size");
	if (!o->max_user_clients)
		o->max_user_clients = (o->max_clients + 1) / 2;
	if (o->target == &target_null && !o->size)
		o->size = NULL_SIZE_DEFAULT;
	if (o->target->takes_size && o->size < 4096)
		return log_error(-EINVAL, "--size %llu is less than 4096 bytes",
				 (unsigned long long)o->size);
	return 0;
}

static void build_getopt(struct option *longs, char *shorts)
{
	for (unsigned int i = 0; i < NR_ROWS; i++) {
		longs[i] = (struct option){ rows[i].name,
					    rows[i].argument ? required_argument : no_argument,
					    NULL, rows[i].value };
		if (rows[i].value >= 256)
			continue;
		*shorts++ = (char)rows[i].value;
		if (rows[i].argument)
			*shorts++ = ':';
	}
	*shorts = '\0';
}

int options_parse(int argc, char **argv, struct options *ret)
{
	struct options o = {
		.device = -1,
		.nr_queues = 1,
		.depth = 128,
		.max_io = 1U << 20,
		.max_clients = 4096,
		.max_buffers = 256,
	};
	struct option longs[NR_ROWS + 1] = { 0 };
	char shorts[2 * NR_ROWS + 1];
	int c;
	int err;

	build_getopt(longs, shorts);
	optind = 1;
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const struct option_row *row = rows;

		if (c == 'h') {
			options_help(argv[0]);
			return 1;
		}
		if (c == '?')
			return -EINVAL;
		while (row->value != c)
			row++;
		err = apply(&o, row, optarg);
		if (err)
			return err;
	}
	err = check(&o, argc, argv);
	if (!err)
		*ret = o;
	return err;
}
