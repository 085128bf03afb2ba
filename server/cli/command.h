/* SPDX-License-Identifier: MIT */
/*
 * command.h - what a verb takes on its command line.
 *
 * Each verb has one table.  Parsing, --help (help.h), the manual's list of options and the
 * shells' completion come from it, so none of them can say what the others do not.
 */
#ifndef UBLKZC_SERVER_CLI_COMMAND_H
#define UBLKZC_SERVER_CLI_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#define EXIT_USAGE 2

#define DEVICE_MAX 1048575U /* the driver's minors end there */
#define FLAGS_MAX 48U	    /* of one verb */

/* What an argument or an operand is: for completion. */
enum word {
	WORD_NONE,
	WORD_ANY,
	WORD_DEVICE,  /* 0, ublkb0 or /dev/ublkb0 */
	WORD_DEVICES, /* the same, and the flag may be given again with another */
	WORD_FILE,
	WORD_FILES, /* so may this one */
	WORD_PID,
	WORD_PROGRAM, /* and its arguments: options end at the first operand */
	WORD_CHOICE,  /* flag.argument is "a|b|c" */
	WORD_SETTINGS, /* NAME=VALUE; the flag may be repeated */
	WORD_ENGINE,  /* a name that "ublkzc engines" lists, or a file */
};

struct flag {
	int key;	  /* a letter; from 256: it has none */
	const char *name; /* without its dashes */
	enum word takes;
	const char *argument; /* how help names it; WORD_CHOICE: what there is to choose */
	const char *help;     /* begins small, has no full stop */
};

struct command {
	const char *name;
	const char *summary;  /* begins small, no full stop; NULL: not for users */
	const char *operands; /* as the usage line has them; NULL: none */
	enum word operand;
	const char *about; /* paragraphs for --help, each a line; NULL: none */
	const struct flag *flags;
	unsigned int nr_flags;
	int (*run)(const struct command *command, int argc, char **argv); /* exit status */
};

#define FLAGS(array) .flags = (array), .nr_flags = sizeof(array) / sizeof((array)[0])
#define FLAG_DEVICE                                                                                \
	{                                                                                          \
		'n', "number", WORD_DEVICES, "DEVICE", "another way to say DEVICE"                 \
	}
#define FLAG_JSON(key)                                                                             \
	{                                                                                          \
		key, "json", WORD_NONE, NULL, "for programs: ublkzc-json(5)"                       \
	}

/* In the order of "ublkzc help"; NULL ends them.  main.c */
extern const struct command *const commands[];

/* One pass over argv[1..]. */
struct command_line {
	const struct command *command;
	int argc;
	char **argv;
	const struct flag *flag; /* the last that was read */
	const char *value;	 /* its argument */
	uint64_t seen;		 /* bit N: flags[N] was there */
	char **operands;	 /* after LINE_END */
	int nr_operands;
};

enum {
	LINE_END = 0,
	LINE_BAD = -1,	/* and said why */
	LINE_HELP = -2, /* --help was asked for and is printed */
};

void command_begin(struct command_line *line, const struct command *command, int argc, char **argv);

/* The key of the next flag, or LINE_*. */
int command_next(struct command_line *line);

/* "ublkzc VERB: what is wrong" on stderr, and where help is; LINE_BAD. */
int command_error(const struct command *command, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The exit status that LINE_BAD and LINE_HELP mean. */
int command_status(int result);

/* ---- devices ---- */

struct devices {
	unsigned int *ids; /* of the caller, until devices_free() */
	unsigned int nr;
};

/* @text is a device.  0, or LINE_BAD and said. */
int devices_add(struct devices *devices, const struct command *command, const char *text);

/* So are all operands. */
int devices_add_operands(struct devices *devices, const struct command_line *line);

/* With the operands there must be exactly one, @ret. */
int devices_one(struct devices *devices, const struct command_line *line, unsigned int *ret);

void devices_free(struct devices *devices);

/* The whole line of a verb that takes FLAG_DEVICE and exactly one device, and nothing else.
 * 0, LINE_BAD or LINE_HELP. */
int command_only_device(const struct command *command, int argc, char **argv, unsigned int *ret);

/* "0", "ublkb0" or "/dev/ublkb0"; -EINVAL. */
int device_parse(const char *text, unsigned int *ret);

#endif
