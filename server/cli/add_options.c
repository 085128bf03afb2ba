/* SPDX-License-Identifier: MIT */
/* add_options.c - see add_options.h. */
#include "add_options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/device/ctrl.h"
#include "server/targets/targets.h"
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

const struct flag add_flags[NR_ADD_FLAGS] = {
	{ 't', "target", WORD_CHOICE, "null|mem|file", "where the bytes live (above); required" },
	{ 'n', "number", WORD_ANY, "DEVICE",
	  "which N of /dev/ublkbN; default: the first that is free" },
	{ 'q', "queues", WORD_ANY, "NR",
	  "hardware queues, each served by a thread; 1..32, default 1" },
	{ 'd', "depth", WORD_ANY, "NR", "requests in flight per queue; 1..4096, default 128" },
	{ 'r', "read-only", WORD_NONE, NULL, "clients cannot write" },
	{ OPT_SIZE, "size", WORD_ANY, "SIZE",
	  "of a null or mem device: bytes, or with k, M, G, T" },
	{ OPT_BLOCK_SIZE, "block-size", WORD_ANY, "BYTES",
	  "logical block size: 512, 1024, 2048 or 4096" },
	{ OPT_MAX_IO, "max-io", WORD_ANY, "SIZE", "largest request; 4k..32M, default 1M" },
	{ OPT_BUFFERED, "buffered", WORD_NONE, NULL, "file: use the page cache, not direct I/O" },
	{ OPT_FORCE, "force", WORD_NONE, NULL,
	  "file: also a block device that is mounted or otherwise in use" },
	{ OPT_COPY_ONLY, "copy-only", WORD_NONE, NULL, "no shared-memory zero copy, to compare" },
	{ OPT_MERGES, "merges", WORD_NONE, NULL,
	  "let the kernel merge neighbouring requests; merged ones are copied" },
	{ OPT_SHM_FILE, "shm-file", WORD_FILES, "FILE",
	  "register a hugetlbfs or tmpfs file that clients map themselves; may be repeated" },
	{ OPT_MAX_CLIENTS, "max-clients", WORD_ANY, "NR", "connections of clients; default 4096" },
	{ OPT_MAX_USER_CLIENTS, "max-user-clients", WORD_ANY, "NR",
	  "connections of one user, root excepted; default: half of --max-clients" },
	{ OPT_MAX_BUFFERS, "max-buffers", WORD_ANY, "NR",
	  "registered buffers per client; default 256" },
	{ OPT_MAX_CLIENT_BYTES, "max-client-bytes", WORD_ANY, "SIZE",
	  "registered memory per client; default: half of the machine's" },
	{ OPT_MAX_USER_BYTES, "max-user-bytes", WORD_ANY, "SIZE",
	  "registered memory per user, root excepted; default: half of the machine's" },
	{ OPT_MAX_BYTES, "max-bytes", WORD_ANY, "SIZE",
	  "registered memory in all; default: three quarters of the machine's" },
	{ OPT_RECOVERY, "recovery", WORD_CHOICE, "reissue|fail|none",
	  "when the server dies: reissue (I/O waits for its successor; default), fail (I/O fails "
	  "until then) or none (the device dies too)" },
	{ 'v', "verbose", WORD_NONE, NULL, "say more about what happens" },
};

struct add_line {
	struct command_line line;
	struct options *o;
};

static int bad_value(const struct add_line *l, const char *want)
{
	return command_error(l->line.command, "--%s '%s': %s", l->line.flag->name, l->line.value,
			     want);
}

static int set_number(const struct add_line *l, uint64_t min, uint64_t max, unsigned int *ret)
{
	uint64_t n;
	char want[64];

	if (number_parse(l->line.value, min, max, &n)) {
		snprintf(want, sizeof(want), "wants a whole number from %llu to %llu",
			 (unsigned long long)min, (unsigned long long)max);
		return bad_value(l, want);
	}
	*ret = (unsigned int)n;
	return 0;
}

static int set_size(const struct add_line *l, uint64_t *ret)
{
	if (size_parse(l->line.value, ret) || !*ret)
		return bad_value(l, "wants a size like 4096, 64k, 512M or 2G");
	return 0;
}

static int set_device(const struct add_line *l)
{
	unsigned int device;

	if (device_parse(l->line.value, &device))
		return bad_value(l, "is not a device: 0, ublkb0 and /dev/ublkb0 are");
	l->o->device = (int)device;
	return 0;
}

static int set_block_size(const struct add_line *l)
{
	unsigned int n = 0;
	int ret = set_number(l, 512, 4096, &n);

	if (ret)
		return ret;
	if (n & (n - 1))
		return bad_value(l, "wants 512, 1024, 2048 or 4096");
	l->o->block_size = n;
	return 0;
}

static int set_max_io(const struct add_line *l)
{
	uint64_t size;
	int ret = set_size(l, &size);

	if (ret)
		return ret;
	if (size < 4096 || size > OPTIONS_MAX_IO_MAX || size % 4096)
		return bad_value(l, "wants a multiple of 4096 from 4k to 32M");
	l->o->max_io = (uint32_t)size;
	return 0;
}

static int set_recovery(const struct add_line *l)
{
	const char *mode = l->line.value;

	l->o->recovery = strcmp(mode, "fail") == 0   ? RECOVERY_FAIL
			 : strcmp(mode, "none") == 0 ? RECOVERY_NONE
						     : RECOVERY_REISSUE;
	return 0;
}

static int add_shm_file(const struct add_line *l)
{
	if (l->o->nr_shm_files == OPTIONS_SHM_FILES_MAX)
		return command_error(l->line.command, "more than %u --shm-file options",
				     OPTIONS_SHM_FILES_MAX);
	l->o->shm_files[l->o->nr_shm_files++] = l->line.value;
	return 0;
}

static int apply(struct add_line *l, int key)
{
	struct options *o = l->o;

	switch (key) {
	case 't':
		o->target = target_find(l->line.value);
		return 0;
	case 'n':
		return set_device(l);
	case 'q':
		return set_number(l, 1, OPTIONS_QUEUES_MAX, &o->nr_queues);
	case 'd':
		return set_number(l, 1, OPTIONS_DEPTH_MAX, &o->depth);
	case 'r':
		o->read_only = true;
		return 0;
	case OPT_SIZE:
		return set_size(l, &o->size);
	case OPT_BLOCK_SIZE:
		return set_block_size(l);
	case OPT_MAX_IO:
		return set_max_io(l);
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
		return add_shm_file(l);
	case OPT_MAX_CLIENTS:
		return set_number(l, 1, 65536, &o->max_clients);
	case OPT_MAX_USER_CLIENTS:
		return set_number(l, 1, 65536, &o->max_user_clients);
	case OPT_MAX_USER_BYTES:
		return set_size(l, &o->max_user_bytes);
	case OPT_MAX_BUFFERS:
		return set_number(l, 1, 65535, &o->max_buffers);
	case OPT_MAX_CLIENT_BYTES:
		return set_size(l, &o->max_client_bytes);
	case OPT_MAX_BYTES:
		return set_size(l, &o->max_bytes);
	case OPT_RECOVERY:
		return set_recovery(l);
	default:
		o->verbose = true;
		return 0;
	}
}

/* ---- what the options say together ---- */

static int check_operands(const struct add_line *l)
{
	const struct command *c = l->line.command;
	struct options *o = l->o;
	int nr = l->line.nr_operands;

	if (o->target->takes_path && nr)
		o->path = l->line.operands[0];
	else if (o->target->takes_path)
		return command_error(c, "target '%s' needs a PATH", o->target->name);
	if (nr > (o->target->takes_path ? 1 : 0))
		return command_error(c, "unexpected argument '%s'%s", l->line.operands[nr - 1],
				     o->target->takes_path ? "" : ": this target has no PATH");
	return 0;
}

static int check_size(const struct add_line *l)
{
	const struct command *c = l->line.command;
	struct options *o = l->o;
	unsigned int block = o->block_size ? o->block_size : 512;

	if (o->size && !o->target->takes_size)
		return command_error(c, "--size is not for target '%s': its size is that of PATH",
				     o->target->name);
	if (o->target == &target_null && !o->size)
		o->size = NULL_SIZE_DEFAULT;
	if (!o->target->takes_size)
		return 0;
	if (!o->size)
		return command_error(c, "target '%s' needs --size", o->target->name);
	if (o->size < 4096)
		return command_error(c, "--size %llu is less than 4096 bytes",
				     (unsigned long long)o->size);
	if (o->size % block)
		return command_error(c, "--size %llu is no multiple of the block size, %u bytes",
				     (unsigned long long)o->size, block);
	return 0;
}

static int check(const struct add_line *l)
{
	const struct command *c = l->line.command;
	struct options *o = l->o;
	int ret;

	if (!o->target)
		return command_error(c, "no target given: -t null, -t mem or -t file");
	if (o->buffered && o->target != &target_file)
		return command_error(c, "--buffered is for target file");
	if (o->force && o->target != &target_file)
		return command_error(c, "--force is for target file");
	if (!o->max_user_clients)
		o->max_user_clients = (o->max_clients + 1) / 2;
	ret = check_operands(l);
	return ret ? ret : check_size(l);
}

int add_options_parse(const struct command *command, int argc, char **argv, struct options *ret)
{
	struct options o = {
		.device = -1,
		.nr_queues = 1,
		.depth = 128,
		.max_io = 1U << 20,
		.max_clients = 4096,
		.max_buffers = 256,
	};
	struct add_line l = { .o = &o };
	int key;
	int err;

	command_begin(&l.line, command, argc, argv);
	while ((key = command_next(&l.line)) > 0)
		if (apply(&l, key))
			return LINE_BAD;
	err = key ? key : check(&l);
	if (!err)
		*ret = o;
	return err;
}

/* Before a keeper is started, which would tell of all that it lacks. */
static int check_control(void)
{
	struct ctrl ctrl;
	int ret = ctrl_open(&ctrl);

	if (!ret)
		ctrl_close(&ctrl);
	return ret ? -ENODEV : 0; /* not LINE_BAD, as -EPERM would be */
}

int add_options_possible(const struct command *command, const struct options *o)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (o->target == &target_mem && o->size > memory)
		return command_error(command,
				     "--size %llu is more than this machine's memory, %llu bytes",
				     (unsigned long long)o->size, (unsigned long long)memory);
	for (unsigned int i = 0; i < o->nr_shm_files; i++)
		if (access(o->shm_files[i], F_OK) < 0)
			return command_error(command, "--shm-file '%s': %s", o->shm_files[i],
					     strerror(errno));
	return check_control();
}
