/* SPDX-License-Identifier: MIT */
/* help.c - see help.h. */
#include "help.h"

#include <string.h>

#define FLAG_INDENT 2U	/* columns */
#define TEXT_INDENT 28U /* columns, of what is said of a flag */

static const struct flag help_flag = { 'h', "help", WORD_NONE, NULL, "this text" };

void help_wrap(FILE *out, const char *text, unsigned int at, unsigned int indent)
{
	unsigned int column = at;

	while (*text) {
		unsigned int len = (unsigned int)strcspn(text, " \n");

		if (column > indent && column + 1 + len > HELP_COLUMNS) {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fwrite(text, 1, len, out);
		column += len;
		text += len;
		text += *text != '\0';
	}
	fputc('\n', out);
}

static void flag_line(FILE *out, const struct flag *f)
{
	unsigned int at = FLAG_INDENT;

	if (f->key < 256)
		at += (unsigned int)fprintf(out, "%*s-%c, --%s", (int)FLAG_INDENT, "", f->key,
					    f->name);
	else
		at += (unsigned int)fprintf(out, "%*s    --%s", (int)FLAG_INDENT, "", f->name);
	at -= FLAG_INDENT;
	if (f->takes)
		at += (unsigned int)fprintf(out, " %s", f->argument);
	if (at + 1 > TEXT_INDENT) {
		fputc('\n', out);
		at = 0;
	}
	fprintf(out, "%*s", (int)(TEXT_INDENT - at), "");
	help_wrap(out, f->help, TEXT_INDENT, TEXT_INDENT);
}

/* Each line of @text is a paragraph. */
static void paragraphs(FILE *out, const char *text)
{
	char line[1024];

	while (*text) {
		size_t len = strcspn(text, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)len, text);
		fputc('\n', out);
		help_wrap(out, line, 0, 0);
		text += len;
		text += *text != '\0';
	}
}

void help_command(FILE *out, const struct command *c)
{
	fprintf(out, "usage: ublkzc %s%s%s%s\n", c->name, c->nr_flags ? " [options]" : "",
		c->operands ? " " : "", c->operands ? c->operands : "");
	fputc('\n', out);
	fprintf(out, "%s:", c->name);
	help_wrap(out, c->summary ? c->summary : "not for users", (unsigned int)strlen(c->name) + 1,
		  0);
	if (c->about)
		paragraphs(out, c->about);
	fputc('\n', out);
	for (unsigned int i = 0; i < c->nr_flags; i++)
		flag_line(out, &c->flags[i]);
	flag_line(out, &help_flag);
}

void help_all(FILE *out)
{
	fprintf(out, "usage: ublkzc VERB [options] [arguments]\n\n");
	for (unsigned int i = 0; commands[i]; i++)
		if (commands[i]->summary)
			fprintf(out, "  %-10s  %s\n", commands[i]->name, commands[i]->summary);
	fprintf(out, "  %-10s  %s\n", "version", "this program's version");
	fprintf(out, "\nDEVICE is 0, ublkb0 or /dev/ublkb0. \"ublkzc VERB --help\" says more; the\n"
		     "manual is ublkzc(1).\n");
}

/* ---- man(7) ---- */

/* What troff would take for its own. */
static void roff_text(FILE *out, const char *text)
{
	bool line_begins = true;

	for (; *text; text++) {
		if (line_begins && (*text == '.' || *text == '\''))
			fputs("\\&", out);
		line_begins = *text == '\n';
		if (*text == '-')
			fputs("\\-", out);
		else if (*text == '\\')
			fputs("\\e", out);
		else if (*text == '\n')
			fputs("\n.PP\n", out);
		else
			fputc(*text, out);
	}
	fputc('\n', out);
}

static void roff_flag(FILE *out, const struct flag *f)
{
	fputs(".TP\n.B ", out);
	if (f->key < 256)
		fprintf(out, "\\-%c, ", f->key);
	fputs("\\-\\-", out);
	for (const char *p = f->name; *p; p++)
		fprintf(out, *p == '-' ? "\\-" : "%c", *p);
	if (f->takes)
		fprintf(out, " \\fI%s\\fP", f->argument);
	fputc('\n', out);
	roff_text(out, f->help);
}

void help_manual(FILE *out)
{
	for (unsigned int i = 0; commands[i]; i++) {
		const struct command *c = commands[i];

		if (!c->summary)
			continue;
		fprintf(out, ".SS ublkzc %s%s%s%s\n", c->name, c->nr_flags ? " [options]" : "",
			c->operands ? " " : "", c->operands ? c->operands : "");
		roff_text(out, c->summary);
		if (c->about) {
			fputs(".PP\n", out);
			roff_text(out, c->about);
		}
		for (unsigned int k = 0; k < c->nr_flags; k++)
			roff_flag(out, &c->flags[k]);
	}
}
