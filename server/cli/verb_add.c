/* SPDX-License-Identifier: MIT */
/* verb_add.c - "add", and what a keeper starts: servers that take over, and those that only try. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "server/device/device.h"
#include "server/life/keeper.h"
#include "server/life/logging.h"
#include "sizes.h"
#include "start.h"
#include "verbs.h"

static int add(const struct command *command, int argc, char **argv)
{
	struct start s;
	int status;

	if (start_prepare(&s, command, argc, argv, &status) ||
	    (status = start_possible(command, &s)))
		return status;
	return start_in_background(&s);
}

const struct command command_add = {
	.name = "add",
	.summary = "start a server in the background; prints its device",
	.operands = "[PATH]",
	.operand = WORD_FILE,
	.about = "Returns when the device is live. The server logs to "
		 "/run/ublkzc/ublkbN.log.\n" START_TARGETS,
	ADD_FLAGS,
	.run = add,
};

/* ---- after a server's death ---- */

static void in_successor(unsigned int device, void *arg)
{
	start_title(arg, device);
}

/* Of "VERB VERSION FD" and a server's command line.  0, or the exit status to end with. */
static int inherit(int argc, char **argv, struct vault *v, struct start *s)
{
	uint64_t version;
	uint64_t fd;
	struct stat st;
	int status;

	prctl(PR_SET_NAME, "ublkzc"); /* it was executed by descriptor */
	if (fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode))
		logging_to_file(); /* the predecessor's */
	if (argc < 4 || number_parse(argv[1], 0, UINT32_MAX, &version) ||
	    number_parse(argv[2], 3, INT32_MAX, &fd)) {
		log_line(LOG_ERROR, "%s is for servers' keepers; see ublkzc recover", argv[0]);
		return EXIT_USAGE;
	}
	if (version != VAULT_VERSION) {
		log_line(LOG_ERROR,
			 "the running server's records have version %llu, this program's %d",
			 (unsigned long long)version, VAULT_VERSION);
		return EXIT_OTHER_VAULT;
	}
	*v = (struct vault){ .fd = (int)fd };
	fcntl(v->fd, F_SETFD, FD_CLOEXEC);
	return start_prepare(s, &command_add, argc - 3, argv + 3, &status) ? EXIT_OTHER_OPTIONS : 0;
}

static int take_over(const struct command *command, int argc, char **argv)
{
	struct vault v = VAULT_NONE;
	struct start s;
	int ret = inherit(argc, argv, &v, &s);

	(void)command;
	if (ret)
		return ret;
	ret = device_recover(&s.options, &v, -1, in_successor, &s);
	return ret == -ENODEV || ret == -ENODATA ? EXIT_GONE : ret ? EXIT_FAILURE : 0;
}

static int rehearse(const struct command *command, int argc, char **argv)
{
	struct vault v = VAULT_NONE;
	struct start s;
	int ret = inherit(argc, argv, &v, &s);

	(void)command;
	if (ret)
		return ret;
	ret = device_rehearse(&v);
	if (!ret)
		vault_ready(&v, 0);
	return ret == -EPROTO	 ? EXIT_OTHER_VAULT
	       : ret == -EBADMSG ? EXIT_OTHER_STATE
	       : ret		 ? EXIT_FAILURE
				 : 0;
}

const struct command command_take_over = { .name = "take-over", .run = take_over };
const struct command command_rehearse = { .name = "rehearse", .run = rehearse };
