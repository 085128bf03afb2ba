/* SPDX-License-Identifier: MIT */
/*
 * config.c - one table of variables.
 *
 * Reads the environment by itself: getenv may be interposed, and is not safe
 * while another thread changes it.  A value that is not understood is said
 * once and ignored; nothing here can stop the program.
 */
#include "config.h"

#include <string.h>

#include "common/log.h"
#include "common/wire.h"

struct config config;

static const struct config defaults = {
	.log_level = LOG_WARN,
	.mmap_brief_ms = 10,
	.fork_copy_max = 64ULL << 20,
	.arena_first = 16ULL << 20,
	.connect_ms = 200,
	.socket_dir = WIRE_DIR,
	.legacy_dir = WIRE_LEGACY_DIR,
};

enum kind { KIND_BOOL, KIND_NUMBER, KIND_WORD, KIND_PATH, KIND_TEXT, KIND_FOREIGN };

struct variable {
	const char *name; /* behind UBLKZC_ */
	enum kind kind;
	size_t field;	   /* offset in struct config */
	uint64_t unit;	   /* numbers: multiplied with it */
	uint64_t min, max; /* numbers: before that */
	const char *words; /* words, in the order of their enum, space-separated */
};

#define FIELD(name) offsetof(struct config, name)

static const struct variable variables[] = {
	{ "DISABLE", KIND_BOOL, FIELD(disable), 0, 0, 0, NULL },
	{ "STATS", KIND_BOOL, FIELD(stats), 0, 0, 0, NULL },
	{ "PROBE", KIND_BOOL, FIELD(probe), 0, 0, 0, NULL },
	{ "LOG", KIND_WORD, FIELD(log_level), 0, 0, 0, "error warn info debug" },
	{ "CAPTURE", KIND_WORD, FIELD(capture), 0, 0, 0, "auto none aligned malloc mmap all" },
	{ "FORK", KIND_WORD, FIELD(fork), 0, 0, 0, "auto copy private" },
	{ "MALLOC_MIN", KIND_NUMBER, FIELD(malloc_min), 1, 512, 1ULL << 32, NULL },
	{ "MMAP_MIN", KIND_NUMBER, FIELD(mmap_min), 1, 4096, 1ULL << 32, NULL },
	{ "MMAP_BRIEF_MS", KIND_NUMBER, FIELD(mmap_brief_ms), 1, 0, 60000, NULL },
	{ "FORK_COPY_MAX_MB", KIND_NUMBER, FIELD(fork_copy_max), 1 << 20, 0, 1 << 20, NULL },
	{ "ARENA_MB", KIND_NUMBER, FIELD(arena_first), 1 << 20, 2, 4096, NULL },
	{ "MAX_MB", KIND_NUMBER, FIELD(max_bytes), 1 << 20, 0, 1 << 20, NULL },
	{ "CONNECT_MS", KIND_NUMBER, FIELD(connect_ms), 1, 0, 60000, NULL },
	{ "SOCKET_DIR", KIND_PATH, FIELD(socket_dir), 0, 0, 0, NULL },
	{ "LEGACY_SOCKET_DIR", KIND_PATH, FIELD(legacy_dir), 0, 0, 0, NULL },
	{ "STATS_FILE", KIND_PATH, FIELD(stats_file), 0, 0, 0, NULL },
	{ "PROFILES", KIND_PATH, FIELD(profiles), 0, 0, 0, NULL },
	{ "PROFILE", KIND_TEXT, FIELD(profile), 0, 0, 0, NULL },
	/* Of the project's scripts, not of the library: known, so not complained about. */
	{ "CACHE", KIND_FOREIGN, 0, 0, 0, 0, NULL },
};

static bool parse_number(const char *value, const struct variable *v, uint64_t *ret)
{
	uint64_t n = 0;

	if (!*value)
		return false;
	for (; *value; value++) {
		if (*value < '0' || *value > '9' || n > v->max)
			return false;
		n = n * 10 + (uint64_t)(*value - '0');
	}
	if (n < v->min || n > v->max)
		return false;
	*ret = n * v->unit;
	return true;
}

static bool parse_bool(const char *value, bool *ret)
{
	static const char *const yes[] = { "1", "true", "yes", "on" };
	static const char *const no[] = { "0", "false", "no", "off" };

	for (int i = 0; i < 4; i++) {
		if (strcmp(value, yes[i]) == 0) {
			*ret = true;
			return true;
		}
		if (strcmp(value, no[i]) == 0 || !*value) {
			*ret = false;
			return true;
		}
	}
	return false;
}

/* Position of @value among the space-separated @words; false: not there. */
static bool parse_word(const char *value, const char *words, int *ret)
{
	size_t len = strlen(value);
	int position = 0;

	while (*words) {
		size_t word = strcspn(words, " ");

		if (word == len && memcmp(words, value, len) == 0) {
			*ret = position;
			return true;
		}
		words += word + (words[word] == ' ');
		position++;
	}
	return false;
}

static bool copy_text(char *to, const char *value)
{
	size_t len = strlen(value);

	if (len >= CONFIG_TEXT_MAX)
		return false;
	memcpy(to, value, len + 1);
	return true;
}

static bool parse(const struct variable *v, const char *value, struct config *ret)
{
	char *field = (char *)ret + v->field;

	switch (v->kind) {
	case KIND_BOOL:
		return parse_bool(value, (bool *)field);
	case KIND_NUMBER:
		return parse_number(value, v, (uint64_t *)field);
	case KIND_WORD:
		if (v->field == FIELD(log_level))
			ret->log_set = true;
		return parse_word(value, v->words, (int *)field);
	case KIND_PATH:
		if (value[0] != '/')
			return false;
		return copy_text(field, value);
	case KIND_TEXT:
		return copy_text(field, value);
	default:
		return true;
	}
}

static void complain(const struct variable *v, const char *value)
{
	switch (v->kind) {
	case KIND_BOOL:
		log_line(LOG_WARN, "UBLKZC_%s='%s' is ignored: 0 or 1", v->name, value);
		break;
	case KIND_NUMBER:
		log_line(LOG_WARN, "UBLKZC_%s='%s' is ignored: a number from %llu to %llu", v->name,
			 value, (unsigned long long)v->min, (unsigned long long)v->max);
		break;
	case KIND_WORD:
		log_line(LOG_WARN, "UBLKZC_%s='%s' is ignored: one of %s", v->name, value,
			 v->words);
		break;
	case KIND_PATH:
		log_line(LOG_WARN,
			 "UBLKZC_%s='%s' is ignored: an absolute path of less than %d bytes",
			 v->name, value, CONFIG_TEXT_MAX);
		break;
	default:
		log_line(LOG_WARN, "UBLKZC_%s is ignored: it has %d bytes or more", v->name,
			 CONFIG_TEXT_MAX);
	}
}

static void take(const char *text, struct config *ret)
{
	size_t len = strcspn(text, "=");

	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
		const struct variable *v = &variables[i];

		if (strlen(v->name) != len || memcmp(v->name, text, len) != 0 || !text[len])
			continue;
		if (!parse(v, text + len + 1, ret))
			complain(v, text + len + 1);
		return;
	}
	log_line(LOG_WARN, "UBLKZC_%s is ignored: no such variable", text);
}

void config_read(char *const *environ_list, struct config *ret)
{
	*ret = defaults;
	for (; environ_list && *environ_list; environ_list++)
		if (strncmp(*environ_list, "UBLKZC_", 7) == 0)
			take(*environ_list + 7, ret);
}
