/* SPDX-License-Identifier: MIT */
/* help_engine.c - see help_engine.h. */
#include "help_engine.h"

#include "help.h"

#define TEXT_INDENT 28U /* columns, as options of verbs have it */

static void option_line(FILE *out, const struct ublkzc_option *o)
{
	unsigned int at = (unsigned int)fprintf(out, "  -o %s=%s", o->name, o->value);

	if (at + 1 > TEXT_INDENT) {
		fputc('\n', out);
		at = 0;
	}
	fprintf(out, "%*s", (int)(TEXT_INDENT - at), "");
	help_wrap(out, o->help, TEXT_INDENT, TEXT_INDENT);
}

void help_engine(FILE *out, const struct ublkzc_engine *e)
{
	unsigned int at =
		(unsigned int)fprintf(out, "\n-t %s%s%s%s:", e->name,
				      e->flags & UBLKZC_TAKES_SIZE ? " --size SIZE" : "",
				      e->argument ? " " : "", e->argument ? e->argument : "") -
		1;

	help_wrap(out, e->summary, at, 0);
	for (const struct ublkzc_option *o = e->options; o && o->name; o++)
		option_line(out, o);
}
