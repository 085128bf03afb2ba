/* SPDX-License-Identifier: MIT */
/* main.c - the verbs of ublkzc. */
#include <bsd/unistd.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "server/life/caller.h"
#include "server/life/logging.h"
#include "command.h"
#include "help.h"
#include "verbs.h"

const struct command *const commands[] = {
	&command_add,
	&command_serve,
	&command_del,
	&command_recover,
	&command_upgrade,
	&command_resize,
	&command_list,
	&command_stat,
	&command_run,
	&command_attach,
	&command_detach,
	&command_clients,
	&command_doctor,
	&command_engines,
	&command_features,
	&command_manual,
	&command_completion,
	&command_take_over,
	&command_rehearse,
	NULL,
};

static const struct command *find(const char *name)
{
	for (unsigned int i = 0; commands[i]; i++)
		if (strcmp(name, commands[i]->name) == 0)
			return commands[i];
	return NULL;
}

static bool is(const char *word, const char *verb)
{
	return strcmp(word, verb) == 0 ||
	       (strncmp(word, "--", 2) == 0 && strcmp(word + 2, verb) == 0);
}

/* A full disk, a reader that went away: what was asked for is not there. */
static int close_output(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	log_error(-errno, "standard output");
	return status ? status : EXIT_FAILURE;
}

static int run(int argc, char **argv)
{
	const struct command *command = find(argv[1]);

	/* run has its own way with the program that it runs. */
	if (strcmp(argv[1], command_run.name) != 0)
		caller_forget_signals();
	if (command)
		return command->run(command, argc - 1, argv + 1);
	if (is(argv[1], "version"))
		return printf("ublkzc %s\n", UBLKZC_VERSION) < 0;
	if (!is(argv[1], "help") && strcmp(argv[1], "-h") != 0) {
		log_line(LOG_ERROR, "unknown verb '%s' (ublkzc help lists them)", argv[1]);
		return EXIT_USAGE;
	}
	command = argc > 2 ? find(argv[2]) : NULL;
	if (command)
		help_command(stdout, command);
	else
		help_all(stdout);
	return 0;
}

/* Room for titles; argv[] are copies then. */
static void prepare_titles(int argc, char **argv)
{
	/* They go behind the path: rubbish would follow one that is shorter than argv[0]. */
	argv[0] = program_invocation_short_name;
	setproctitle_init(argc, argv, environ);
}

/* What verbs may put other words into, as they make paths absolute. */
static char **words_of(int argc, char **argv)
{
	static char **words; /* a checker for leaks finds all of them */

	words = calloc((size_t)argc + 1, sizeof(*words));
	if (words)
		memcpy(words, argv, (size_t)argc * sizeof(*words));
	return words;
}

int main(int argc, char **argv)
{
	char **words;

	caller_fill_streams();
	prepare_titles(argc, argv);
	log_init("ublkzc", LOG_WARN);
	logging_begin();
	if (argc < 2) {
		help_all(stderr);
		return EXIT_USAGE;
	}
	words = words_of(argc, argv);
	if (!words) {
		log_error(-ENOMEM, "start");
		return EXIT_FAILURE;
	}
	return close_output(run(argc, words));
}
