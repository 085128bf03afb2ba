/* SPDX-License-Identifier: MIT */
/* main.c - the verbs of ublkzc. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "verbs.h"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
	{ "add", verb_add, "start a server in the background; prints its device" },
	{ "serve", verb_serve, "the same in the foreground, for a service manager" },
	{ "del", verb_del, "stop a server and remove its device (-n ID, or -a for all)" },
	{ "recover", verb_recover, "serve a device whose server died (-n ID)" },
	{ "upgrade", verb_upgrade, "replace a server by the installed program (-n ID)" },
	{ "resize", verb_resize, "let a live device grow (-n ID)" },
	{ "list", verb_list, "the devices of running servers" },
	{ "stat", verb_stat, "what was zero-copy, what was not, and why (-n ID, --json)" },
	{ "run", verb_run, "run a program under libublkzc.so and say what was zero-copy" },
	{ "attach", verb_attach, "zero copy for a program that is already running (--pid PID)" },
	{ "detach", verb_detach, "end that" },
	{ "features", verb_features, "what the running kernel's ublk driver can do" },
	{ "take-over", verb_take_over, NULL }, /* keepers say these, users need not */
	{ "rehearse", verb_rehearse, NULL },
};

#define NR_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static void usage(FILE *out)
{
	fprintf(out, "usage: ublkzc VERB [options]\n\n");
	for (unsigned int i = 0; i < NR_VERBS && verbs[i].help; i++)
		fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].help);
	fprintf(out, "  %-10s %s\n", "version", "this program's version");
	fprintf(out, "\nublkzc VERB --help says more; the manual is ublkzc(8).\n");
}

int main(int argc, char **argv)
{
	log_init("ublkzc", LOG_WARN);
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0 ||
	    strcmp(argv[1], "-h") == 0) {
		usage(stdout);
		return 0;
	}
	if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
		printf("ublkzc %s\n", UBLKZC_VERSION);
		return 0;
	}
	for (unsigned int i = 0; i < NR_VERBS; i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	log_line(LOG_ERROR, "unknown verb '%s' (ublkzc help lists them)", argv[1]);
	return EXIT_USAGE;
}
