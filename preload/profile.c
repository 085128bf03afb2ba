/* SPDX-License-Identifier: MIT */
/*
 * profile.c - the table.
 *
 * Everything aligned to 512 or more is captured in every program.  These take
 * their buffers from elsewhere too.  A program that forks to snapshot its heap
 * must never have malloc_min here.
 */
#include "profile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "common/log.h"
#include "config.h"
#include "sys.h"

#define WORD_MAX 64 /* bytes of a word or program name */

static const struct profile profiles[] = {
	/* one malloc per job, aligned by hand, or any kind of mapping by --mem */
	{ "fio", PROFILE_MALLOC_MIN, 4096, false, false },
	/* RocksDB: new char[] of 4.6 KiB to 2 MiB */
	{ "db_bench", PROFILE_MALLOC_MIN, 0, false, false },
	{ "ldb", PROFILE_MALLOC_MIN, 0, false, false },
	/* new uint8_t[] */
	{ "ddrescue", PROFILE_MALLOC_MIN, 0, false, false },
	/* direct ByteBuffers */
	{ "java", PROFILE_MALLOC_MIN, 0, false, false },
	/* InnoDB: buffer pool and log buffers are anonymous mappings */
	{ "mariadbd", 0, PROFILE_MMAP_MIN, false, false },
	{ "mysqld", 0, PROFILE_MMAP_MIN, false, false },
	/* direct I/O is in shared memory; one process per connection, so an
	 * arena in each would be much memory for nothing */
	{ "postgres", 0, 0, true, false },
};

const struct profile *profile_of(const char *program)
{
	static const struct profile unknown = { .program = "" };

	for (size_t i = 0; program && i < sizeof(profiles) / sizeof(profiles[0]); i++)
		if (strcmp(program, profiles[i].program) == 0)
			return &profiles[i];
	return &unknown;
}

/* ---- the user's ---- */

static bool is_word(const char *word, size_t len, const char *text)
{
	return strlen(text) == len && memcmp(word, text, len) == 0;
}

/* "=BYTES" behind @name; @usual when there is nothing behind it. */
static bool parse_min(const char *word, size_t len, const char *name, size_t usual, size_t *ret)
{
	size_t at = strlen(name);
	size_t n = 0;

	if (len < at || memcmp(word, name, at) != 0)
		return false;
	if (len == at) {
		*ret = usual;
		return true;
	}
	if (word[at++] != '=' || at == len)
		return false;
	for (; at < len; at++) {
		if (word[at] < '0' || word[at] > '9' || n > (1UL << 32))
			return false;
		n = n * 10 + (size_t)(word[at] - '0');
	}
	*ret = n;
	return n >= 512;
}

static bool parse_word(const char *word, size_t len, struct profile *ret)
{
	if (is_word(word, len, "no-ahead"))
		return ret->no_ahead = true;
	if (is_word(word, len, "off"))
		return ret->off = true;
	return parse_min(word, len, "malloc", PROFILE_MALLOC_MIN, &ret->malloc_min) ||
	       parse_min(word, len, "mmap", PROFILE_MMAP_MIN, &ret->mmap_min);
}

static size_t skip_blanks(const char *text, size_t at, size_t len)
{
	while (at < len && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r'))
		at++;
	return at;
}

static size_t skip_word(const char *text, size_t at, size_t len)
{
	while (at < len && text[at] != ' ' && text[at] != '\t' && text[at] != '\r')
		at++;
	return at;
}

/* One line without its end; true when it is well-formed and for @program. */
static bool parse_line(const char *line, size_t len, const char *program, const char *source,
		       struct profile *ret)
{
	struct profile found = { .program = program };
	size_t at = skip_blanks(line, 0, len);
	size_t end = skip_word(line, at, len);
	char name[WORD_MAX], bad[WORD_MAX];
	bool ours;

	if (at == len || line[at] == '#')
		return false;
	log_format(name, end - at < sizeof(name) ? (unsigned int)(end - at + 1) : sizeof(name),
		   "%s", line + at);
	ours = end - at < sizeof(name) && strcmp(name, program) == 0;
	while ((at = skip_blanks(line, end, len)) < len && line[at] != '#') {
		end = skip_word(line, at, len);
		if (parse_word(line + at, end - at, &found))
			continue;
		log_format(bad, end - at < sizeof(bad) ? (unsigned int)(end - at + 1) : sizeof(bad),
			   "%s", line + at);
		log_line(LOG_WARN,
			 "%s: the line of %s is ignored: '%s' is not malloc, malloc=BYTES, mmap, "
			 "mmap=BYTES, no-ahead or off",
			 source, name, bad);
		return false;
	}
	if (ours)
		*ret = found;
	return ours;
}

bool profile_parse(const char *text, size_t len, const char *program, const char *source,
		   struct profile *ret)
{
	bool found = false;
	size_t at = 0;

	while (at < len) {
		size_t end = at;

		while (end < len && text[end] != '\n' && text[end] != ';' && text[end] != '\0')
			end++;
		found |= parse_line(text + at, end - at, program, source, ret);
		at = end + 1;
	}
	return found;
}

/* Read into memory of its own, so that the file may change meanwhile.  0 or a negative errno. */
static int parse_file(const char *path, const char *program, struct profile *ret, bool *ret_found)
{
	long fd = sys_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0,
			   0, 0);
	long len, map;

	if (fd < 0)
		return (int)fd;
	map = sys_mmap(NULL, PROFILES_FILE_MAX + 1, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	len = sys_is_error(map) ? map : sys_call(SYS_read, fd, map, PROFILES_FILE_MAX + 1, 0, 0, 0);
	sys_close((int)fd);
	if (len >= 0 && len <= PROFILES_FILE_MAX)
		*ret_found = profile_parse((const char *)map, (size_t)len, program, path, ret);
	if (!sys_is_error(map))
		sys_munmap((void *)map, PROFILES_FILE_MAX + 1);
	if (len > PROFILES_FILE_MAX)
		return -EFBIG;
	return len < 0 ? (int)len : 0;
}

/* A directory need not have a file for each program. */
static bool parse_place(const char *path, const char *program, struct profile *ret)
{
	char below[PATH_MAX];
	bool found = false;
	int err = parse_file(path, program, ret, &found);

	if (err == -EISDIR && strlen(path) + strlen(program) + 2 <= sizeof(below)) {
		log_format(below, sizeof(below), "%s/%s", path, program);
		err = parse_file(below, program, ret, &found);
		if (err == -ENOENT || err == -EISDIR)
			return false;
	}
	if (err == -EFBIG)
		log_line(LOG_WARN, "UBLKZC_PROFILES='%s' is ignored: over %d bytes", path,
			 PROFILES_FILE_MAX);
	else if (err)
		log_error(err, "UBLKZC_PROFILES='%s' is ignored", path);
	return found;
}

/* The first of several, between colons, that has the program. */
static bool parse_places(const char *paths, const char *program, struct profile *ret)
{
	char path[CONFIG_TEXT_MAX];

	while (*paths) {
		size_t len = strcspn(paths, ":");

		log_format(path, (unsigned int)len + 1, "%s", paths);
		if (len && parse_place(path, program, ret))
			return true;
		paths += len + (paths[len] == ':');
	}
	return false;
}

const struct profile *profile_choose(const char *program)
{
	static struct profile chosen;

	if (!program)
		return profile_of(NULL);
	if (config.profile[0] && profile_parse(config.profile, strlen(config.profile), program,
					       "UBLKZC_PROFILE", &chosen))
		return &chosen;
	if (parse_places(config.profiles, program, &chosen))
		return &chosen;
	return profile_of(program);
}
