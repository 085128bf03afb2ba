/* SPDX-License-Identifier: MIT */
/* sizes.c - see sizes.h. */
#include "sizes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int parse_digits(const char *text, const char **ret_end, uint64_t *ret)
{
	char *end;
	unsigned long long n;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return -errno;
	*ret_end = end;
	*ret = n;
	return 0;
}

int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	const char *end = text;
	uint64_t n = 0;
	int err = parse_digits(text, &end, &n);

	if (err)
		return err;
	if (*end)
		return -EINVAL;
	if (n < min || n > max)
		return -ERANGE;
	*ret = n;
	return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "kmgt";
	const char *end = text;
	const char *unit;
	unsigned int shift = 0;
	uint64_t n = 0;
	int err = parse_digits(text, &end, &n);

	if (err)
		return err;
	if (*end) {
		unit = strchr(units, *end | 0x20);
		if (!unit)
			return -EINVAL;
		shift = 10 * (unsigned int)(unit - units + 1);
		end++;
		if (strcmp(end, "iB") == 0 || strcmp(end, "ib") == 0)
			end += 2;
	}
	if (*end)
		return -EINVAL;
	if (shift && n >> (64 - shift))
		return -ERANGE;
	*ret_bytes = n << shift;
	return 0;
}
