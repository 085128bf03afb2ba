/* SPDX-License-Identifier: MIT */
/* arguments.c - see arguments.h. */
#include "arguments.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state.h"

void arguments_path(char *buf, size_t size, unsigned int device)
{
	snprintf(buf, size, STATE_DIR "/ublkb%u.args", device);
}

int arguments_save(unsigned int device, int argc, char **argv)
{
	char text[ARGUMENTS_BYTES_MAX];
	size_t used = 0;
	char path[64];
	ssize_t n;
	int fd;

	for (int i = 0; i < argc; i++) {
		size_t len = strlen(argv[i]) + 1;

		if (i == ARGUMENTS_MAX || len > sizeof(text) - used)
			return -E2BIG;
		memcpy(text + used, argv[i], len);
		used += len;
	}
	arguments_path(path, sizeof(path), device);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	n = write(fd, text, used);
	close(fd);
	return n == (ssize_t)used ? 0 : -EIO;
}

/* Cut @text into words; @argv has room for ARGUMENTS_MAX and a NULL. */
static int cut(char *text, size_t len, char **argv)
{
	int argc = 0;

	for (size_t at = 0; at < len; at += strlen(text + at) + 1) {
		if (argc == ARGUMENTS_MAX)
			return -E2BIG;
		argv[argc++] = text + at;
	}
	argv[argc] = NULL;
	return argc;
}

int arguments_load(unsigned int device, int *ret_argc, char ***ret_argv)
{
	char **argv = calloc(1, (ARGUMENTS_MAX + 1) * sizeof(*argv) + ARGUMENTS_BYTES_MAX + 1);
	char *text;
	char path[64];
	ssize_t n;
	int fd;
	int argc;

	if (!argv)
		return -ENOMEM;
	text = (char *)(argv + ARGUMENTS_MAX + 1);
	arguments_path(path, sizeof(path), device);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? -1 : read(fd, text, ARGUMENTS_BYTES_MAX);
	argc = n < 0 ? -errno : cut(text, (size_t)n, argv);
	if (fd >= 0)
		close(fd);
	if (argc < 0) {
		free(argv);
		return argc;
	}
	*ret_argc = argc;
	*ret_argv = argv;
	return 0;
}

char *arguments_absolute(const char *word)
{
	char *absolute = word[0] == '/' || word[0] == '-' ? NULL : realpath(word, NULL);

	return absolute ? absolute : strdup(word);
}
