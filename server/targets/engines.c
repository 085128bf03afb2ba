/* SPDX-License-Identifier: MIT */
/* engines.c - see engines.h. */
#include "engines.h"

#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIRECTORY UBLKZC_LIBDIR "/ublkzc"
#define SUFFIX ".so"
#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

/* A new engine that is built in is a file and a word here. */
static const struct ublkzc_engine *const built_in[] = { &engine_null, &engine_mem, &engine_file };
#define NR_BUILT_IN (sizeof(built_in) / sizeof(built_in[0]))

struct loaded {
	struct loaded *next;
	char *file;
	struct ublkzc_engine engine; /* what it is shorter than ours, is 0 */
};

static struct loaded *loaded;

const char *engine_directory(void)
{
	return DIRECTORY;
}

const struct ublkzc_option *engine_option(const struct ublkzc_engine *engine, const char *name,
					  size_t len)
{
	for (const struct ublkzc_option *o = engine->options; o && o->name; o++)
		if (strncmp(o->name, name, len) == 0 && !o->name[len])
			return o;
	return NULL;
}

/* What an engine cannot do without.  NULL, or what is wrong. */
static const char *lacks(const struct ublkzc_engine *e)
{
	if (e->size <= offsetof(struct ublkzc_engine, submit))
		return "its structure is too small";
	if (!e->name || !e->name[0] || e->name[strspn(e->name, NAME_CHARACTERS)])
		return "it has no name, or one with other characters than letters, digits, - and _";
	if (!e->summary || !e->open || !e->close || !e->submit)
		return "it lacks a summary, open, close or submit";
	return NULL;
}

/* 0, or -1 and @why. */
static int fit(const struct ublkzc_module *module, struct ublkzc_engine *ret, char *why,
	       size_t size)
{
	const struct ublkzc_engine *engine;
	const char *wrong;

	if (module->version != UBLKZC_ENGINE_VERSION) {
		snprintf(why, size,
			 "it is made for version %u of <ublkzc/engine.h>, and ublkzc %s has "
			 "version %d",
			 module->version, UBLKZC_VERSION, UBLKZC_ENGINE_VERSION);
		return -1;
	}
	engine = module->engine;
	if (!engine || !module->host) {
		snprintf(why, size, "its UBLKZC_ENGINE() is empty");
		return -1;
	}
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, engine, engine->size < sizeof(*ret) ? engine->size : sizeof(*ret));
	wrong = lacks(ret);
	if (wrong) {
		snprintf(why, size, "%s", wrong);
		return -1;
	}
	*module->host = ublkzc_host;
	return 0;
}

static struct loaded *remember(const char *file, const struct ublkzc_engine *engine)
{
	struct loaded *l = malloc(sizeof(*l));

	if (!l)
		return NULL;
	*l = (struct loaded){ .next = loaded, .file = strdup(file), .engine = *engine };
	if (!l->file) {
		free(l);
		return NULL;
	}
	loaded = l;
	return l;
}

static const struct ublkzc_engine *load(const char *file, char *why, size_t size)
{
	const struct ublkzc_module *module;
	struct ublkzc_engine engine;
	struct loaded *l;
	void *handle;

	for (l = loaded; l; l = l->next)
		if (strcmp(l->file, file) == 0)
			return &l->engine;
	handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		snprintf(why, size, "%s", dlerror());
		return NULL;
	}
	module = dlsym(handle, "ublkzc_module");
	if (module && fit(module, &engine, why, size) == 0) {
		l = remember(file, &engine);
		if (l)
			return &l->engine;
		snprintf(why, size, "no memory");
	} else if (!module) {
		snprintf(why, size, "it is no engine: it has no UBLKZC_ENGINE()");
	}
	dlclose(handle);
	return NULL;
}

static const struct ublkzc_engine *load_named(const char *name, char *why, size_t size)
{
	const struct ublkzc_engine *engine;
	char file[PATH_MAX];

	if (!name[0] || name[strspn(name, NAME_CHARACTERS)]) {
		snprintf(why, size, "that is no engine's name (ublkzc engines lists them)");
		return NULL;
	}
	snprintf(file, sizeof(file), DIRECTORY "/%s" SUFFIX, name);
	if (access(file, F_OK) < 0) {
		snprintf(why, size,
			 "there is no such engine: neither built in (null, mem, file) nor %s",
			 file);
		return NULL;
	}
	engine = load(file, why, size);
	if (engine && strcmp(engine->name, name) != 0) {
		snprintf(why, size, "%s calls itself %s", file, engine->name);
		return NULL;
	}
	return engine;
}

const struct ublkzc_engine *engine_find(const char *name, char *why, size_t size)
{
	for (unsigned int i = 0; i < NR_BUILT_IN; i++)
		if (strcmp(built_in[i]->name, name) == 0)
			return built_in[i];
	return strchr(name, '/') ? load(name, why, size) : load_named(name, why, size);
}

static int is_engine(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return len > strlen(SUFFIX) && strcmp(entry->d_name + len - strlen(SUFFIX), SUFFIX) == 0;
}

void engine_for_each(void (*each)(const char *file, const struct ublkzc_engine *engine,
				  const char *why, void *arg),
		     void *arg)
{
	struct dirent **entries;
	char file[PATH_MAX];
	char name[NAME_MAX];
	char why[512];
	int nr;

	for (unsigned int i = 0; i < NR_BUILT_IN; i++)
		each(NULL, built_in[i], NULL, arg);
	nr = scandir(DIRECTORY, &entries, is_engine, alphasort);
	for (int i = 0; i < nr; i++) {
		snprintf(file, sizeof(file), DIRECTORY "/%s", entries[i]->d_name);
		snprintf(name, sizeof(name), "%.*s",
			 (int)(strlen(entries[i]->d_name) - strlen(SUFFIX)), entries[i]->d_name);
		free(entries[i]);
		each(file, load_named(name, why, sizeof(why)), why, arg);
	}
	if (nr >= 0)
		free(entries);
}
