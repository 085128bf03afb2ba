/* SPDX-License-Identifier: MIT */
/* add_options.c - see add_options.h. */
#include "add_options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/device/ctrl.h"
#include "server/targets/engines.h"
#include "help_engine.h"
#include "sizes.h"

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
	{ 't', "target", WORD_ENGINE, "ENGINE",
	  "where the bytes live: null, mem, file, or another engine (above); required" },
	{ 'o', "option", WORD_SETTINGS, "NAME=VALUE", "an option of the engine; may be repeated" },
	{ 'n', "number", WORD_ANY, "DEVICE",
	  "which N of /dev/ublkbN; default: the first that is free" },
	{ 'q', "queues", WORD_ANY, "NR",
	  "hardware queues, each served by a thread on its processors; 1..32, default 1" },
	{ 'd', "depth", WORD_ANY, "NR", "requests in flight per queue; 1..4096, default 128" },
	{ 'r', "read-only", WORD_NONE, NULL, "clients cannot write" },
	{ OPT_SIZE, "size", WORD_ANY, "SIZE",
	  "of a device whose engine has no size of its own, like null and mem: bytes, or with k, M, "
	  "G, T" },
	{ OPT_BLOCK_SIZE, "block-size", WORD_ANY, "BYTES",
	  "logical block size: 512, 1024, 2048 or 4096" },
	{ OPT_MAX_IO, "max-io", WORD_ANY, "SIZE", "largest request; 4k..32M, default 1M" },
	{ OPT_BUFFERED, "buffered", WORD_NONE, NULL, "the same as -o buffered=yes" },
	{ OPT_FORCE, "force", WORD_NONE, NULL,
	  "the same as -o force=yes" },
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

static int set_engine(const struct add_line *l)
{
	char why[512];

	l->o->engine_name = l->line.value;
	l->o->engine = engine_find(l->line.value, why, sizeof(why));
	return l->o->engine ? 0 : bad_value(l, why);
}

/* Of which engine, may be said later. */
static int add_setting(const struct add_line *l, const char *setting)
{
	const char *equals = strchr(setting, '=');

	if (!equals || equals == setting)
		return bad_value(l, "wants NAME=VALUE");
	if (l->o->nr_settings == OPTIONS_SETTINGS_MAX)
		return command_error(l->line.command, "more than %u options of the engine",
				     OPTIONS_SETTINGS_MAX);
	l->o->settings[l->o->nr_settings++] = setting;
	return 0;
}

static int apply(struct add_line *l, int key)
{
	struct options *o = l->o;

	switch (key) {
	case 't':
		return set_engine(l);
	case 'o':
		return add_setting(l, l->line.value);
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
		return add_setting(l, "buffered=yes");
	case OPT_FORCE:
		return add_setting(l, "force=yes");
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
	const struct ublkzc_engine *e = l->o->engine;
	int nr = l->line.nr_operands;

	if (e->argument && nr)
		l->o->path = l->line.operands[0];
	else if (e->argument)
		return command_error(c, "target '%s' needs a %s", e->name, e->argument);
	if (nr > (e->argument ? 1 : 0))
		return command_error(c, "unexpected argument '%s'%s", l->line.operands[nr - 1],
				     e->argument ? "" : ": this target has no PATH");
	return 0;
}

static int check_size(const struct add_line *l)
{
	const struct command *c = l->line.command;
	const struct ublkzc_engine *e = l->o->engine;
	struct options *o = l->o;
	unsigned int block = o->block_size ? o->block_size : 512;

	if (!(e->flags & UBLKZC_TAKES_SIZE))
		return o->size ? command_error(c,
					       "--size is not for target '%s', which has its own",
					       e->name)
			       : 0;
	if (!o->size)
		o->size = e->default_size;
	if (!o->size)
		return command_error(c, "target '%s' needs --size", e->name);
	if (o->size < 4096)
		return command_error(c, "--size %llu is less than 4096 bytes",
				     (unsigned long long)o->size);
	if (o->size % block)
		return command_error(c, "--size %llu is no multiple of the block size, %u bytes",
				     (unsigned long long)o->size, block);
	return 0;
}

static int check_settings(const struct add_line *l)
{
	const struct ublkzc_engine *e = l->o->engine;

	for (unsigned int i = 0; i < l->o->nr_settings; i++) {
		const char *setting = l->o->settings[i];
		int len = (int)strcspn(setting, "=");

		if (!engine_option(e, setting, (size_t)len))
			return command_error(l->line.command,
					     "target '%s' has no option '%.*s' (ublkzc add -t %s "
					     "--help lists them)",
					     e->name, len, setting, e->name);
	}
	return 0;
}

static int check(const struct add_line *l)
{
	struct options *o = l->o;
	int ret;

	if (!o->engine)
		return command_error(l->line.command,
				     "no target given: -t null, -t mem, -t file, or another of "
				     "ublkzc engines");
	if (!o->max_user_clients)
		o->max_user_clients = (o->max_clients + 1) / 2;
	if ((ret = check_settings(l)) || (ret = check_operands(l)))
		return ret;
	return check_size(l);
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
	if (key == LINE_HELP && o.engine)
		help_engine(stdout, o.engine);
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

static int check_with_engine(const struct command *command, const struct options *o)
{
	struct ublkzc_target target;
	char why[512] = "";
	int ret;

	if (!o->engine->check)
		return 0;
	if (options_make_target(o, &target))
		return command_error(command, "no memory");
	ret = o->engine->check(&target, why, sizeof(why));
	options_free_target(&target);
	return ret ? command_error(command, "%s", why) : 0;
}

int add_options_possible(const struct command *command, const struct options *o)
{
	int ret = check_with_engine(command, o);

	if (ret)
		return ret;
	for (unsigned int i = 0; i < o->nr_shm_files; i++)
		if (access(o->shm_files[i], F_OK) < 0)
			return command_error(command, "--shm-file '%s': %s", o->shm_files[i],
					     strerror(errno));
	return check_control();
}
