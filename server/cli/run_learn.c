/* SPDX-License-Identifier: MIT */
/*
 * run_learn.c - see run_learn.h.
 *
 * The tiers are tried from the cheapest to the dearest, on every process of the program; the
 * profile is for those processes that had a ublk disk open by direct I/O.
 */
#include "run_learn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "run_devices.h"
#include "run_program.h"
#include "run_report.h"

#define USER_DIR "/ublkzc/profiles" /* below ~/.config */
#define SYSTEM_DIR "/etc/ublkzc/profiles"

#define ENOUGH 950 /* per mille of the bytes */
#define WORTH 50   /* per mille more than without, else nothing is written */

static const struct tier {
	const char *capture;  /* UBLKZC_CAPTURE */
	const char *mmap_min; /* UBLKZC_MMAP_MIN; NULL: as ever */
	const char *words;    /* of the profile; NULL: none is needed */
	const char *text;
} tiers[] = {
	{ "auto", NULL, NULL, "as it is" },
	{ "malloc", NULL, "malloc", "with large mallocs" },
	{ "mmap", NULL, "mmap", "with large private mappings" },
	{ "all", NULL, "malloc mmap", "with both" },
	{ "all", "4096", "malloc mmap=4096", "with all mappings" },
};
#define TIERS (sizeof(tiers) / sizeof(tiers[0]))

struct result {
	int status;
	unsigned int share; /* per mille */
	unsigned long long bytes;
	struct report_file *file; /* NULL: none */
};

/* ---- a run ---- */

/* False, and said: without a report nothing can be learnt. */
static bool try(const struct tier *tier, char **program, struct result *ret)
{
	static struct run_devices before, after;
	unsigned long long zero;

	setenv("UBLKZC_CAPTURE", tier->capture, 1);
	if (tier->mmap_min)
		setenv("UBLKZC_MMAP_MIN", tier->mmap_min, 1);
	else
		unsetenv("UBLKZC_MMAP_MIN");
	if (run_report_make())
		return false;
	run_devices_look(&before);
	ret->status = run_program(program, NULL, NULL);
	ret->file = run_report_take();
	run_devices_look(&after);
	run_devices_bytes(&before, &after, &zero, &ret->bytes);
	ret->share = ret->bytes ? (unsigned int)(zero * 1000 / ret->bytes) : 0;
	if (ret->bytes)
		fprintf(stderr, "ublkzc: learn: %s: %u.%u %% zero-copy\n", tier->text,
			ret->share / 10, ret->share % 10);
	return true;
}

static bool can_learn(const struct result *r, const char *program)
{
	if (r->status)
		log_line(LOG_ERROR, "learn: %s ended with status %d: nothing is learnt from that",
			 program, r->status);
	else if (!r->bytes)
		log_line(LOG_ERROR, "learn: %s did no I/O on a ublkzc device", program);
	else if (!r->file || !r->file->next)
		log_line(LOG_ERROR, "learn: %s: %s", program, run_program_why_not(program));
	else
		return true;
	return false;
}

/* ---- what was learnt ---- */

static int make_dirs(char *path)
{
	for (char *at = path + 1;; at++) {
		if (*at && *at != '/')
			continue;
		const char was = *at;
		*at = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return log_error(-errno, "learn: %s", path);
		*at = was;
		if (!was)
			return 0;
	}
}

/* 0, or -ENOENT: he has none. */
static int user_dir(char *ret, size_t size)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	int len = -1;

	if (config && config[0])
		len = config[0] == '/' ? snprintf(ret, size, "%s" USER_DIR, config) : -1;
	else if (home && home[0] == '/')
		len = snprintf(ret, size, "%s/.config" USER_DIR, home);
	return len < 0 || (size_t)len >= size || strchr(ret, ':') ? -ENOENT : 0;
}

static int profiles_dir(char *ret, size_t size)
{
	if (geteuid() == 0)
		snprintf(ret, size, SYSTEM_DIR);
	else if (user_dir(ret, size))
		return log_error(-ENOENT,
				 "learn: neither XDG_CONFIG_HOME nor HOME is an absolute path");
	return make_dirs(ret);
}

void run_learnt(void)
{
	char user[RUN_PATH_MAX], both[RUN_PATH_MAX + sizeof(SYSTEM_DIR) + 1] = "";

	if (getenv("UBLKZC_PROFILES"))
		return;
	if (user_dir(user, sizeof(user)) == 0 && access(user, X_OK) == 0)
		snprintf(both, sizeof(both), "%s", user);
	if (access(SYSTEM_DIR, X_OK) == 0)
		snprintf(both + strlen(both), sizeof(both) - strlen(both), "%s%s",
			 both[0] ? ":" : "", SYSTEM_DIR);
	if (both[0])
		setenv("UBLKZC_PROFILES", both, 1);
}

/* Whole, or not at all. */
static int write_profile(const char *dir, const char *program, const struct tier *tier,
			 const struct result *without, const struct result *with)
{
	char path[RUN_PATH_MAX + 64], new[RUN_PATH_MAX + 64];
	FILE *f;
	int fd, bad;

	snprintf(path, sizeof(path), "%s/%s", dir, program);
	snprintf(new, sizeof(new), "%s/.new.XXXXXX", dir);
	fd = mkostemp(new, O_CLOEXEC);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		return log_error(-errno, "learn: %s", new);
	fprintf(f,
		"# By ublkzc run --learn: %u.%u %% was zero-copy without this, %u.%u %% with it.\n"
		"%s %s\n",
		without->share / 10, without->share % 10, with->share / 10, with->share % 10,
		program, tier->words);
	fchmod(fd, 0644);
	bad = ferror(f);
	if (fclose(f) || bad || rename(new, path) < 0) {
		bad = -errno;
		unlink(new);
		return log_error(bad, "learn: %s", path);
	}
	fprintf(stderr, "ublkzc: learn: %s: %s\n", path, tier->words);
	return 0;
}

static bool did_direct_io(const struct report *r)
{
	return r->program[0] && !strchr(r->program, '/') && r->program[0] != '.' &&
	       report_get(r, STAT_DIRECT_OPENS) > report_get(r, STAT_NOT_UBLK);
}

static bool is_first(const struct report_file *file, unsigned int slot)
{
	for (unsigned int i = 0; i < slot; i++)
		if (did_direct_io(&file->slots[i]) &&
		    strcmp(file->slots[i].program, file->slots[slot].program) == 0)
			return false;
	return true;
}

static void warn_of_forks(const struct report *r)
{
	if (report_get(r, STAT_FORK_COPIES) || report_get(r, STAT_FORK_PRIVATE))
		log_line(LOG_WARN,
			 "learn: %s forks: read what that costs (docs/environment.md, fork) before "
			 "you keep this profile",
			 r->program);
}

static int write_down(const struct tier *tier, const struct result *without,
		      const struct result *with)
{
	unsigned int nr = with->file->next < REPORT_SLOTS ? with->file->next : REPORT_SLOTS;
	char dir[RUN_PATH_MAX];
	bool any = false;
	int ret = profiles_dir(dir, sizeof(dir));

	for (unsigned int i = 0; !ret && i < nr; i++) {
		const struct report *r = &with->file->slots[i];

		if (!did_direct_io(r) || !is_first(with->file, i))
			continue;
		any = true;
		ret = write_profile(dir, r->program, tier, without, with);
		warn_of_forks(r);
	}
	if (!ret && !any)
		ret = log_error(-ENOENT,
				"learn: none of its processes opened a ublk disk with O_DIRECT");
	return ret;
}

static int conclude(const struct result *results, unsigned int nr, unsigned int best)
{
	const struct result *without = &results[0], *with = &results[best];

	if (!best && without->share >= ENOUGH) {
		fprintf(stderr, "ublkzc: learn: it needs no profile\n");
		return 0;
	}
	if (with->share < without->share + WORTH) {
		log_line(
			LOG_ERROR,
			"learn: no profile makes it zero-copy (ublkzc run --explain says why it is "
			"copied)");
		return EXIT_FAILURE;
	}
	if (with->share < ENOUGH)
		log_line(LOG_WARN, "learn: no more than that in %u runs", nr);
	return write_down(&tiers[best], without, with) ? EXIT_FAILURE : 0;
}

int run_learn(char **program)
{
	struct result results[TIERS] = { 0 };
	unsigned int nr = 0, best = 0;
	int ret = EXIT_FAILURE;
	bool well = true;

	while (well && nr < TIERS && (!nr || results[best].share < ENOUGH)) {
		well = try(&tiers[nr], program, &results[nr]) &&
		       can_learn(&results[nr], program[0]);
		/* A dearer one must be worth it. */
		if (results[nr].share >= results[best].share + 10)
			best = nr;
		nr++;
	}
	if (well)
		ret = conclude(results, nr, best);
	else if (results[nr - 1].status)
		ret = results[nr - 1].status;
	for (unsigned int i = 0; i < nr; i++)
		free(results[i].file);
	return ret;
}
