/* SPDX-License-Identifier: MIT */
/*
 * verb_completion.c - "completion": what shells need to complete our command line, and
 * "manual": the part of ublkzc(1) that the tables tell.
 *
 * Scripts hold no knowledge: for every word they are given the verbs, or a verb's flags and what
 * its arguments are, all from the tables.
 */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "help.h"
#include "verbs.h"

static bool users(const struct command *c)
{
	return c->summary != NULL;
}

/* ---- bash and zsh, with the compgen of its bashcompinit ---- */

static const char *bash_generator(enum word word)
{
	switch (word) {
	case WORD_DEVICE:
	case WORD_DEVICES:
		return "compgen -W \"$(command ls /dev | grep '^ublkb[0-9]')\" -- \"$word\"";
	case WORD_FILE:
	case WORD_FILES:
		return "compgen -f -- \"$word\"";
	case WORD_PID:
		return "compgen -W \"$(cd /proc && echo [0-9]*)\" -- \"$word\"";
	case WORD_PROGRAM:
		return "compgen -c -f -- \"$word\"";
	case WORD_ENGINE:
		return "compgen -f -W \"$(ublkzc engines 2>/dev/null | sed -n 's/^-t "
		       "\\([^ :]*\\).*/\\1/p')\" -- \"$word\"";
	default:
		return ":";
	}
}

static void bash_argument(const struct flag *f)
{
	printf("        ");
	if (f->key < 256)
		printf("-%c | ", f->key);
	printf("--%s) ", f->name);
	if (f->takes != WORD_CHOICE) {
		printf("%s ;;\n", bash_generator(f->takes));
		return;
	}
	printf("compgen -W '");
	for (const char *p = f->argument; *p; p++)
		putchar(*p == '|' ? ' ' : *p);
	printf("' -- \"$word\" ;;\n");
}

static void bash_verb(const struct command *c)
{
	printf("    %s)\n        case $before in\n", c->name);
	for (unsigned int i = 0; i < c->nr_flags; i++)
		if (c->flags[i].takes)
			bash_argument(&c->flags[i]);
	printf("        *)\n            [[ $word != -* ]] || compgen -W '--help");
	for (unsigned int i = 0; i < c->nr_flags; i++)
		printf(" --%s", c->flags[i].name);
	printf("' -- \"$word\"\n            [[ $word == -* ]] || %s\n            ;;\n        esac\n"
	       "        ;;\n",
	       bash_generator(c->operand));
}

/* What may be there, a word a line: of bash, and of zsh with its compgen. */
static void words(void)
{
	printf("_ublkzc_words() { # VERB BEFORE WORD\n"
	       "    local before=$2 word=$3\n    case $1 in\n");
	for (unsigned int i = 0; commands[i]; i++)
		if (users(commands[i]))
			bash_verb(commands[i]);
	printf("    '') compgen -W 'help version");
	for (unsigned int i = 0; commands[i]; i++)
		if (users(commands[i]))
			printf(" %s", commands[i]->name);
	printf("' -- \"$word\" ;;\n    esac\n}\n");
}

static void bash(void)
{
	printf("# ublkzc completion bash\n");
	words();
	printf("_ublkzc() {\n    local verb=''\n"
	       "    [ \"$COMP_CWORD\" -lt 2 ] || verb=${COMP_WORDS[1]}\n"
	       "    mapfile -t COMPREPLY < <(_ublkzc_words \"$verb\" \"${COMP_WORDS[COMP_CWORD - "
	       "1]}\" "
	       "\"${COMP_WORDS[COMP_CWORD]}\")\n}\n"
	       "complete -o filenames -F _ublkzc ublkzc\n");
}

static void zsh(void)
{
	printf("#compdef ublkzc\nautoload -Uz bashcompinit\nbashcompinit\n");
	words();
	printf("_ublkzc() {\n    local verb=''\n    local -a found\n"
	       "    (( CURRENT < 3 )) || verb=$words[2]\n"
	       "    found=(${(f)\"$(_ublkzc_words \"$verb\" \"$words[CURRENT-1]\" "
	       "\"$words[CURRENT]\")\"})\n"
	       "    compadd -a found\n}\n"
	       "if [[ $funcstack[1] = _ublkzc ]]; then _ublkzc; else compdef _ublkzc ublkzc; fi\n");
}

/* ---- fish ---- */

/* In single quotes. */
static void fish_quoted(const char *text)
{
	putchar('\'');
	for (; *text; text++) {
		if (*text == '\'' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	putchar('\'');
}

static const char *fish_generator(enum word word)
{
	switch (word) {
	case WORD_DEVICE:
	case WORD_DEVICES:
		return " -f -a '(command ls /dev | string match -r \\'^ublkb[0-9]+$\\')'";
	case WORD_FILE:
	case WORD_FILES:
		return " -F";
	case WORD_PID:
		return " -f -a '(__fish_complete_pids)'";
	case WORD_PROGRAM:
		return " -a '(__fish_complete_subcommand)'";
	case WORD_ENGINE:
		return " -F -a '(ublkzc engines 2>/dev/null | string match -r -g "
		       "\"^-t ([^ :]+)\")'";
	default:
		return " -f";
	}
}

static void fish_flag(const struct command *c, const struct flag *f)
{
	printf("complete -c ublkzc -n '__fish_seen_subcommand_from %s' -l %s", c->name, f->name);
	if (f->key < 256)
		printf(" -s %c", f->key);
	if (f->takes == WORD_CHOICE) {
		printf(" -x -a '");
		for (const char *p = f->argument; *p; p++)
			putchar(*p == '|' ? ' ' : *p);
		putchar('\'');
	} else if (f->takes) {
		printf(" -r%s", fish_generator(f->takes));
	}
	printf(" -d ");
	fish_quoted(f->help);
	putchar('\n');
}

static void fish(void)
{
	printf("# ublkzc completion fish\ncomplete -c ublkzc -f\n");
	for (unsigned int i = 0; commands[i]; i++) {
		const struct command *c = commands[i];

		if (!users(c))
			continue;
		printf("complete -c ublkzc -n __fish_use_subcommand -a %s -d ", c->name);
		fish_quoted(c->summary);
		printf("\ncomplete -c ublkzc -n '__fish_seen_subcommand_from %s'%s\n", c->name,
		       fish_generator(c->operand));
		for (unsigned int k = 0; k < c->nr_flags; k++)
			fish_flag(c, &c->flags[k]);
	}
}

/* ---- the verbs ---- */

static int completion(const struct command *command, int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*print)(void);
	} shells[] = { { "bash", bash }, { "zsh", zsh }, { "fish", fish } };
	struct command_line line;
	int key;

	command_begin(&line, command, argc, argv);
	key = command_next(&line);
	if (!key && line.nr_operands != 1)
		key = command_error(command, "which shell?");
	if (key)
		return command_status(key);
	for (unsigned int i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
		if (strcmp(line.operands[0], shells[i].name) != 0)
			continue;
		shells[i].print();
		return 0;
	}
	return command_status(command_error(command, "'%s' is not a shell we know: bash, zsh, fish",
					    line.operands[0]));
}

const struct command command_completion = {
	.name = "completion",
	.summary = "print what a shell needs to complete this command line",
	.operands = "bash|zsh|fish",
	.operand = WORD_ANY,
	.about = "Packages install it where the shells look. By hand: source <(ublkzc completion "
		 "bash)",
	.run = completion,
};

static int manual(const struct command *command, int argc, char **argv)
{
	struct command_line line;
	int key;

	command_begin(&line, command, argc, argv);
	key = command_next(&line);
	if (key)
		return command_status(key);
	help_manual(stdout);
	return 0;
}

const struct command command_manual = {
	.name = "manual",
	.run = manual,
};
