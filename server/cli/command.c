/* SPDX-License-Identifier: MIT */
/* command.c - see command.h; help.c has what it prints. */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "help.h"

void command_begin(struct command_line *line, const struct command *command, int argc, char **argv)
{
	*line = (struct command_line){
		.command = command, .argc = argc, .argv = argv, .operands = argv + argc
	};
	optind = 0; /* glibc: begin anew, whatever was parsed before */
	opterr = 0;
}

int command_error(const struct command *command, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "ublkzc %s: ", command->name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " (ublkzc %s --help)\n", command->name);
	return LINE_BAD;
}

int command_status(int result)
{
	return result == LINE_HELP ? 0 : EXIT_USAGE;
}

/* getopt's way of saying what the table says. */
static void make_getopt(const struct command *c, struct option *longs, char *shorts)
{
	if (c->operand == WORD_PROGRAM)
		*shorts++ = '+';
	*shorts++ = ':';
	*shorts++ = 'h';
	for (unsigned int i = 0; i < c->nr_flags; i++) {
		const struct flag *f = &c->flags[i];

		*longs++ = (struct option){ f->name, f->takes ? required_argument : no_argument,
					    NULL, f->key };
		if (f->key >= 256)
			continue;
		*shorts++ = (char)f->key;
		if (f->takes)
			*shorts++ = ':';
	}
	*longs++ = (struct option){ "help", no_argument, NULL, 'h' };
	*longs = (struct option){ 0 };
	*shorts = '\0';
}

static const struct flag *flag_of(const struct command *c, int key)
{
	for (unsigned int i = 0; i < c->nr_flags; i++)
		if (c->flags[i].key == key)
			return &c->flags[i];
	return NULL;
}

/* The word that getopt did not like: "--nonsense", or "-x" of "-vx". */
static int bad_flag(const struct command_line *line, bool lacks_argument)
{
	const char *word = line->argv[optind - 1];
	const struct flag *f = flag_of(line->command, optopt);
	char letter[3] = { '-', (char)optopt, '\0' };

	if (lacks_argument)
		return command_error(line->command, "%s wants an argument: %s", word,
				     f ? f->argument : "?");
	if (f)
		return command_error(line->command, "'%s': --%s takes no argument", word, f->name);
	return command_error(line->command, "unknown option '%s'",
			     strncmp(word, "--", 2) == 0 ? word : letter);
}

/* Is @value one of "a|b|c"? */
static bool is_choice(const char *choices, const char *value)
{
	size_t len = strlen(value);

	while (choices) {
		if (strncmp(choices, value, len) == 0 && len &&
		    (choices[len] == '|' || !choices[len]))
			return true;
		choices = strchr(choices, '|');
		choices += choices != NULL;
	}
	return false;
}

/* Nobody can mean both of two values. */
static int said_before(struct command_line *line, const struct flag *flag)
{
	enum word takes = flag->takes;
	uint64_t bit = 1ULL << (flag - line->command->flags);

	if (line->seen & bit && takes != WORD_NONE && takes != WORD_DEVICES && takes != WORD_FILES &&
	    takes != WORD_SETTINGS)
		return command_error(line->command, "--%s is given twice", flag->name);
	line->seen |= bit;
	return 0;
}

int command_next(struct command_line *line)
{
	struct option longs[FLAGS_MAX + 2];
	char shorts[2 * FLAGS_MAX + 4];
	int key;

	make_getopt(line->command, longs, shorts);
	key = getopt_long(line->argc, line->argv, shorts, longs, NULL);
	if (key == -1) {
		line->operands = line->argv + optind;
		line->nr_operands = line->argc - optind;
		if (!line->command->operands && line->nr_operands)
			return command_error(line->command, "unexpected argument '%s'",
					     line->operands[0]);
		return LINE_END;
	}
	if (key == 'h') {
		help_command(stdout, line->command);
		return LINE_HELP;
	}
	if (key == '?' || key == ':')
		return bad_flag(line, key == ':');
	line->flag = flag_of(line->command, key);
	line->value = optarg;
	if (!line->flag || said_before(line, line->flag))
		return LINE_BAD;
	if (line->flag->takes == WORD_CHOICE && !is_choice(line->flag->argument, optarg))
		return command_error(line->command, "--%s '%s': wants one of %s", line->flag->name,
				     optarg, line->flag->argument);
	return key;
}
