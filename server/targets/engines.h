/* SPDX-License-Identifier: MIT */
/*
 * engines.h - the engines there are: built in, and shared objects.
 *
 * A shared object is loaded once and stays for as long as the process does.  Control thread.
 */
#ifndef UBLKZC_SERVER_TARGETS_ENGINES_H
#define UBLKZC_SERVER_TARGETS_ENGINES_H

#include <ublkzc/engine.h>

extern const struct ublkzc_engine engine_null;
extern const struct ublkzc_engine engine_mem;
extern const struct ublkzc_engine engine_file;

/*
 * The engine @name: built in; or NAME.so of the package; or, with a slash in it, that file.  NULL:
 * there is none that fits, and @why says why.
 */
const struct ublkzc_engine *engine_find(const char *name, char *why, size_t size);

/* Where the package's engines are. */
const char *engine_directory(void);

/*
 * Call @each for every engine, those that are built in first.  @file: NULL if built in; @engine:
 * NULL if it cannot be used, and @why says why.
 */
void engine_for_each(void (*each)(const char *file, const struct ublkzc_engine *engine,
				  const char *why, void *arg),
		     void *arg);

/* Its option @name (up to @len bytes of it); NULL: it has none of that name. */
const struct ublkzc_option *engine_option(const struct ublkzc_engine *engine, const char *name,
					  size_t len);

#endif
