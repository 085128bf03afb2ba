/* SPDX-License-Identifier: MIT */
/* targets.c - the list of targets: a new one is one file and one line here. */
#include "targets.h"

#include <string.h>

const struct target_ops *const targets[] = { &target_null, &target_mem, &target_file, NULL };

const struct target_ops *target_find(const char *name)
{
	for (unsigned int i = 0; targets[i]; i++)
		if (strcmp(targets[i]->name, name) == 0)
			return targets[i];
	return NULL;
}
