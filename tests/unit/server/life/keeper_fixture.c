/* SPDX-License-Identifier: MIT */
/* keeper_fixture.c - see keeper_fixture.h. */
#include "keeper_fixture.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/unit/cmocka_all.h"

char diary[96];

void write_diary(const char *text)
{
	FILE *f = fopen(diary, "ae");

	if (f) {
		fprintf(f, "%s;", text);
		fclose(f);
	}
}

void read_diary(char text[DIARY_MAX])
{
	FILE *f = fopen(diary, "re");

	text[0] = '\0';
	if (f) {
		text[fread(text, 1, DIARY_MAX - 1, f)] = '\0';
		fclose(f);
	}
}

void expect_diary(const char *want)
{
	char text[DIARY_MAX];

	read_diary(text);
	assert_string_equal(text, want);
}

static void ready(unsigned int device, void *arg)
{
	char line[32];

	(void)arg;
	snprintf(line, sizeof(line), "ready %u", device);
	write_diary(line);
}

pid_t start_keeper(struct keeper_start *start)
{
	pid_t pid = fork();

	start->ready = ready;
	if (pid == 0) {
		log_init("test", LOG_ERROR);
		_exit(keeper_run(start));
	}
	return pid;
}

int status_of(pid_t keeper)
{
	int status = -1;

	assert_int_equal(waitpid(keeper, &status, 0), keeper);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}
