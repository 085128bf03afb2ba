/* SPDX-License-Identifier: MIT */
/* spec.c - see spec.h. */
#include "spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int wrong(const char *text, const char *what, char *why, size_t size)
{
	snprintf(why, size,
		 "%s: %s: give POOL/IMAGE, POOL/NAMESPACE/IMAGE, or either with @SNAPSHOT", text,
		 what);
	return -EINVAL;
}

/* What comes after the next @separator, which becomes the end of what is before; or NULL. */
static char *split(char *text, char separator)
{
	char *at = strchr(text, separator);

	if (!at)
		return NULL;
	*at = 0;
	return at + 1;
}

int spec_parse(const char *text, struct spec *ret, char *why, size_t size)
{
	char *first, *second, *third;

	*ret = (struct spec){ .name_space = "" };
	if (strncmp(text, "rbd:", 4) == 0)
		return wrong(text, "QEMU's way of writing it is not understood", why, size);
	if (strlen(text) >= sizeof(ret->text))
		return wrong(text, "longer than any name in a cluster", why, size);
	memcpy(ret->text, text, strlen(text) + 1);
	first = ret->text;
	ret->snapshot = split(first, '@');
	second = split(first, '/');
	if (!second)
		return wrong(text, "no pool is named", why, size);
	third = split(second, '/');
	if (third)
		ret->name_space = second;
	ret->pool = first;
	ret->image = third ? third : second;
	if (strchr(ret->image, '/'))
		return wrong(text, "too many slashes", why, size);
	if (!*ret->pool || !*ret->image || (third && !*ret->name_space))
		return wrong(text, "a name is empty", why, size);
	if (ret->snapshot && (!*ret->snapshot || strpbrk(ret->snapshot, "@/")))
		return wrong(text, "no name of a snapshot comes after the @", why, size);
	return 0;
}
